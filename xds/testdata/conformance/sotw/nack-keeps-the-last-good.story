# In place of a cluster that the client has refused its last good content is listed, and the others go on.
# From: gRFC A46

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 v3#1 ledger.prod#1 orders.prod#1

ack cds
----
nothing

add orders/1 check
----
cds r4.2 v4#2 ledger.prod#1 orders.prod#2

nack cds version=last
----
nothing

add basket/3
----
cds r5.3 v5#3 basket.prod#1 ledger.prod#1 orders.prod#1

ack cds
----
nothing

wait 1h
----
nothing
