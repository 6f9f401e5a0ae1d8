# A cluster that is gone is left out of the next response.
# From: xDS protocol, "State of the World"

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 v3#1 ledger.prod#1 orders.prod#1

ack cds
----
nothing

remove ledger/2
----
cds r5.2 v5#2 orders.prod#1
