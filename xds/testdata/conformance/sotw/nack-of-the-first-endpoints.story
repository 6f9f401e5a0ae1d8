# … nor is it sent an empty one in its place, which it would acknowledge.
# From: seen in go-control-plane's LinearCache

add orders/1
----
nothing

send eds names=(orders.prod)
----
eds r2.1 v2#1 orders.prod#1(10.0.0.1)

nack eds
----
nothing

wait 1h
----
nothing

status
----
web-1 eds sent=2 acked=0 in-sync=true silent=false rejected=orders.prod
