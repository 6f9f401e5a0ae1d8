# … also where they were asked for by name, one after the other, as gRPC clients do.
# From: gRFC A27

add orders/1 ledger/2
----
nothing

send cds names=(orders.prod)
----
cds r3.1 v3#1 orders.prod#1

ack cds
----
nothing

send cds names=(orders.prod,ledger.prod)
----
cds r3.2 v3#2 ledger.prod#1 orders.prod#1

ack cds
----
nothing

add ledger/2 check
----
cds r4.3 v4#3 ledger.prod#2 orders.prod#1
