# A shorter list unsubscribes from what is missing; it is not answered.
# From: xDS protocol, "Unsubscribing from Resources"

add orders/1 ledger/2
----
nothing

send eds names=(orders.prod,ledger.prod)
----
eds r3.1 v3#1 ledger.prod#1(10.0.0.2) orders.prod#1(10.0.0.1)

ack eds
----
nothing

send eds names=(ledger.prod)
----
nothing

add orders/3
----
nothing

add ledger/4
----
eds r5.2 v5#2 ledger.prod#2(10.0.0.2 10.0.0.4)
