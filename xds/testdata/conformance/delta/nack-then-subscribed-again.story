# Who subscribes again to what it has refused is told its last good content; where there is none, that there is nothing for it, and why.
# From: xDS protocol, "Subscribing to Resources"

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

nack eds
----
nothing

send eds subscribe=(orders.prod)
----
eds r3.3 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

add ledger/1
----
nothing

send eds subscribe=(ledger.prod)
----
eds r4.4 ledger.prod#1@4(10.0.0.1)

nack eds
----
nothing

send eds subscribe=(ledger.prod)
----
eds r4.5 -ledger.prod !ledger.prod FailedPrecondition

ack eds
----
nothing

add ledger/2
----
eds r5.6 ledger.prod#2@5(10.0.0.1 10.0.0.2)
