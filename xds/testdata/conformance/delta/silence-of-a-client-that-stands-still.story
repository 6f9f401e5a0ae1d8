# A client that answers nothing at all may stand still: nothing is taken back from it.
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

wait 1h
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
web-1 cds sent=2 acked=2 in-sync=true silent=false
web-1 eds sent=2 acked=2 in-sync=true silent=false
