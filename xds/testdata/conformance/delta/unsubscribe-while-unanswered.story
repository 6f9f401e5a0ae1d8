# What is unsubscribed from while a change of it waits for an ACK is not sent after it.
# From: go-control-plane#1498

add orders/1
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.1 orders.prod#1@2(10.0.0.1)

add orders/2
----
nothing

send eds unsubscribe=(orders.prod)
----
nothing

ack eds
----
nothing
