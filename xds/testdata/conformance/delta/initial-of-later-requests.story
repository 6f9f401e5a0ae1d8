# Versions count on the first request of a type only: who subscribes later is answered.
# From: xDS protocol, "Incremental xDS", initial_resource_versions

add orders/1 ledger/2
----
nothing

send eds subscribe=(ledger.prod)
----
eds r3.1 ledger.prod#1@3(10.0.0.2)

ack eds
----
nothing

send eds subscribe=(orders.prod)
----
eds r3.2 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

send eds subscribe=(orders.prod) initial=(orders.prod)
----
eds r3.3 orders.prod#1@2(10.0.0.1)
