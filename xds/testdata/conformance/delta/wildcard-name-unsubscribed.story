# Under "*", who unsubscribes from a name that is part of all is sent it again: it has dropped it, and is to have it still.
# From: xDS protocol, "Unsubscribing from Resources"

add orders/1
----
nothing

send cds subscribe=(*,orders.prod)
----
cds r2.1 orders.prod#1@2

ack cds
----
nothing

send cds unsubscribe=(orders.prod)
----
cds r2.2 orders.prod#1@2
