# What a NACK says of the names holds.
# From: xDS protocol, "ACK and NACK semantics"

add orders/1 ledger/2
----
nothing

send eds names=(orders.prod)
----
eds r3.1 v3#1 orders.prod#1(10.0.0.1)

nack eds names=(orders.prod,ledger.prod)
----
eds r3.2 v3#2 ledger.prod#1(10.0.0.2)
