# A client that has not answered for 15 s is sent what has changed meanwhile.
# From: istio#28957

add orders/1
----
nothing

send eds names=(orders.prod)
----
eds r2.1 v2#1 orders.prod#1(10.0.0.1)

add orders/2
----
nothing

wait 14s
----
nothing

wait 1s
----
eds r3.2 v3#2 orders.prod#2(10.0.0.1 10.0.0.2)

status
----
web-1 eds sent=3 acked=0 in-sync=false silent=false
