# What is unsubscribed from is not told of any more, and not answered.
# From: xDS protocol, "Unsubscribing from Resources"

add orders/1 ledger/2
----
nothing

send eds subscribe=(orders.prod,ledger.prod)
----
eds r3.1 ledger.prod#1@3(10.0.0.2) orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

send eds unsubscribe=(orders.prod)
----
nothing

add orders/3
----
nothing

add ledger/4
----
eds r5.2 ledger.prod#2@5(10.0.0.2 10.0.0.4)
