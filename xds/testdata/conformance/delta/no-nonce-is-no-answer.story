# A request without a nonce answers nothing.
# From: ours

add orders/1
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.1 orders.prod#1@2(10.0.0.1)

add orders/2
----
nothing

send eds
----
nothing

ack eds
----
eds r3.2 orders.prod#2@3(10.0.0.1 10.0.0.2)
