# After a NACK the client has what it had: when the registry goes back to that, there is nothing to send.
# From: gRFC A46

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

drop orders/2
----
nothing
