# Who unsubscribes from what it never asked for changes nothing.
# From: xDS protocol, "Unsubscribing from Resources"

add orders/1
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.1 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

send eds unsubscribe=(ledger.prod)
----
nothing

add orders/2
----
eds r3.2 orders.prod#2@3(10.0.0.1 10.0.0.2)
