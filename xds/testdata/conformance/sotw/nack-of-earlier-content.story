# Content that was refused is not sent when it comes back, whatever was accepted meanwhile.
# From: ours

add orders/1
----
nothing

send eds names=(orders.prod)
----
eds r2.1 v2#1 orders.prod#1(10.0.0.1)

nack eds
----
nothing

add orders/2
----
eds r3.2 v3#2 orders.prod#2(10.0.0.1 10.0.0.2)

ack eds
----
nothing

drop orders/2
----
nothing

status
----
web-1 eds sent=3 acked=3 in-sync=true silent=false rejected=orders.prod
