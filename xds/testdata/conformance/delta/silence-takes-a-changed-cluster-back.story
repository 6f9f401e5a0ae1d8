# … and a cluster that it had accepted in another content is that again, with its endpoints.
# From: measured with Envoy 1.40

add orders/1
----
nothing

send cds
----
cds r2.1 orders.prod#1@2

ack cds
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.2 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

add orders/1 check
----
cds r3.3 orders.prod#2@3
eds r3.4 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

wait 15s
----
cds r3.5 orders.prod#1@2
eds r3.6 orders.prod#1@2(10.0.0.1)

nack cds nonce=r3.3
----
nothing

ack cds
----
nothing

ack eds
----
nothing

status
----
web-1 cds sent=3 acked=3 in-sync=true silent=false rejected=orders.prod
web-1 eds sent=3 acked=3 in-sync=true silent=false
