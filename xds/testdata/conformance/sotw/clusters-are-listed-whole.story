# A response of clusters lists all that the client wants, also those that have not changed: what is missing is gone.
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

add basket/3
----
cds r4.2 v4#2 basket.prod#1 ledger.prod#1 orders.prod#1
