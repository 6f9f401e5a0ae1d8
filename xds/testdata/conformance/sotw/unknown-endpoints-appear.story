# They are sent as soon as they exist.
# From: go-control-plane#565

send eds names=(orders.prod)
----
eds r1.1 v1#1 !orders.prod NotFound

ack eds
----
nothing

add orders/1
----
eds r2.2 v2#2 orders.prod#1(10.0.0.1)
