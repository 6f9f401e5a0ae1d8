# A request with an older nonce answers nothing: the latest response is still unanswered.
# From: xDS protocol, "ACK and NACK semantics"

add orders/1
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.1 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

add orders/2
----
eds r3.2 orders.prod#2@3(10.0.0.1 10.0.0.2)

ack eds nonce=r2.1
----
nothing

add orders/3
----
nothing

ack eds nonce=r3.2
----
eds r4.3 orders.prod#3@4(10.0.0.1 10.0.0.2 10.0.0.3)
