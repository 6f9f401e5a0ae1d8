# An ACK may change the subscriptions as it goes.
# From: xDS protocol, "ACK and NACK semantics"

add orders/1 ledger/2
----
nothing

send eds subscribe=(orders.prod)
----
eds r3.1 orders.prod#1@2(10.0.0.1)

ack eds subscribe=(ledger.prod) unsubscribe=(orders.prod)
----
eds r3.2 ledger.prod#1@3(10.0.0.2)

ack eds
----
nothing

add orders/3
----
nothing

add ledger/4
----
eds r5.3 ledger.prod#2@5(10.0.0.2 10.0.0.4)
