# A new cluster that the client is silent about for 15 s, while it answers what was sent later, is taken back.
# From: measured with Envoy 1.40

add ledger/2
----
nothing

send cds
----
cds r2.1 v2#1 ledger.prod#1

ack cds
----
nothing

send eds names=(ledger.prod,orders.prod)
----
eds r2.2 v2#1 ledger.prod#1(10.0.0.2) !orders.prod NotFound

ack eds
----
nothing

add orders/1
----
cds r3.3 v3#2 ledger.prod#1 orders.prod#1
eds r3.4 v3#2 orders.prod#1(10.0.0.1)

ack eds
----
nothing

wait 15s
----
cds r3.5 v3#1 ledger.prod#1

nack cds nonce=r3.3
----
nothing

ack cds
----
nothing

status
----
web-1 cds sent=3 acked=3 in-sync=true silent=false rejected=orders.prod
web-1 eds sent=3 acked=3 in-sync=true silent=false
