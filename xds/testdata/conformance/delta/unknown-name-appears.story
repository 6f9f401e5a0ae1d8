# A name that did not exist is sent as soon as it does.
# From: go-control-plane#565

send eds subscribe=(orders.prod)
----
eds r1.1 -orders.prod !orders.prod NotFound

ack eds
----
nothing

add orders/1
----
eds r2.2 orders.prod#1@2(10.0.0.1)
