# New content is sent, and the rejection is over when it is accepted.
# From: ours

add orders/1
----
nothing

send eds names=(orders.prod)
----
eds r2.1 v2#1 orders.prod#1(10.0.0.1)

ack eds
----
nothing

add orders/2
----
eds r3.2 v3#2 orders.prod#2(10.0.0.1 10.0.0.2)

nack eds
----
nothing

add orders/3
----
eds r4.3 v4#3 orders.prod#3(10.0.0.1 10.0.0.2 10.0.0.3)

ack eds
----
nothing

status
----
web-1 eds sent=4 acked=4 in-sync=true silent=false
