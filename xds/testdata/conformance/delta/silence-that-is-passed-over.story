# A client that answers a later response has passed over the earlier: it has accepted them, and has them to go back to.
# From: ours

add orders/1 ledger/2
----
nothing

send eds subscribe=(orders.prod)
----
eds r3.1 orders.prod#1@2(10.0.0.1)

wait 15s
----
nothing

send eds subscribe=(ledger.prod)
----
eds r3.2 ledger.prod#1@3(10.0.0.2)

ack eds
----
nothing

add orders/3
----
eds r4.3 orders.prod#2@4(10.0.0.1 10.0.0.3)

nack eds
----
nothing

send eds subscribe=(orders.prod)
----
eds r4.4 orders.prod#1@2(10.0.0.1)
