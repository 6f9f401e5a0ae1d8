# What a NACK says of the subscriptions holds.
# From: xDS protocol, "ACK and NACK semantics"

add orders/1 ledger/2
----
nothing

send eds subscribe=(orders.prod)
----
eds r3.1 orders.prod#1@2(10.0.0.1)

nack eds subscribe=(ledger.prod)
----
eds r3.2 ledger.prod#1@3(10.0.0.2)
