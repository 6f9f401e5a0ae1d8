# A new cluster that the client is silent about for 15 s, while it answers what was sent later, is taken back: Envoy was seen to wait for one for minutes, and to say why it refuses it when it was gone.
# From: measured with Envoy 1.40

send cds
----
cds r1.1

ack cds
----
nothing

send eds subscribe=(orders.prod)
----
eds r1.2 -orders.prod !orders.prod NotFound

ack eds
----
nothing

add orders/1
----
cds r2.3 orders.prod#1@2
eds r2.4 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

wait 15s
----
cds r2.5 -orders.prod

status
----
web-1 cds sent=2 acked=1 in-sync=false silent=false rejected=orders.prod
web-1 eds sent=2 acked=2 in-sync=true silent=false

# The words come late, and are taken.
nack cds nonce=r2.3
----
nothing

ack cds
----
nothing

add ledger/2
----
cds r3.6 ledger.prod#1@3

ack cds
----
nothing

wait 1h
----
nothing

status
----
web-1 cds sent=3 acked=3 in-sync=true silent=false rejected=orders.prod
web-1 eds sent=2 acked=2 in-sync=true silent=false
