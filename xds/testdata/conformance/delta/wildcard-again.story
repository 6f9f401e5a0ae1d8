# Who subscribes to "*" again is told all of it again, like any name.
# From: xDS protocol, "Subscribing to Resources"; go-control-plane#1450

add orders/1 ledger/2
----
nothing

send cds subscribe=(*)
----
cds r3.1 ledger.prod#1@3 orders.prod#1@2

ack cds
----
nothing

send cds subscribe=(*)
----
cds r3.2 ledger.prod#1@3 orders.prod#1@2
