# What a stream has refused is not sent to it after it has unsubscribed and subscribed again, nor after the service was gone.
# From: ours

add orders/1
----
nothing

send cds subscribe=(orders.prod)
----
cds r2.1 orders.prod#1@2

nack cds
----
nothing

send cds unsubscribe=(orders.prod)
----
nothing

send cds subscribe=(orders.prod)
----
cds r2.2 -orders.prod !orders.prod FailedPrecondition

ack cds
----
nothing

remove orders/1
----
nothing

add orders/1
----
nothing
