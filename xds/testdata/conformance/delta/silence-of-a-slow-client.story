# A client that was only slow says yes in the end. Then it is sent the cluster again, and given the time that it takes.
# From: ours

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

ack cds nonce=r2.3
----
nothing

ack cds
----
cds r2.6 orders.prod#1@2
eds r2.7 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

wait 1m
----
nothing

ack cds
----
nothing

status
----
web-1 cds sent=2 acked=2 in-sync=true silent=false
web-1 eds sent=2 acked=2 in-sync=true silent=false
