# A NACK that comes when newer content has been sent is remembered all the same: what was refused does not come again.
# From: ours

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

wait 15s
----
nothing

add orders/3
----
eds r4.3 orders.prod#3@4(10.0.0.1 10.0.0.2 10.0.0.3)

nack eds nonce=r3.2
----
nothing

ack eds
----
nothing

drop orders/3
----
nothing
