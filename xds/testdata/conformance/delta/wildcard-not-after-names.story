# A request that subscribes to nothing asks for all only when it is the first of its type.
# From: xDS protocol, "How the client specifies what resources to return"

add orders/1 ledger/2
----
nothing

send cds subscribe=(orders.prod)
----
cds r3.1 orders.prod#1@2

ack cds
----
nothing

send cds
----
nothing

send cds unsubscribe=(orders.prod)
----
nothing

send cds
----
nothing

add basket/3
----
nothing
