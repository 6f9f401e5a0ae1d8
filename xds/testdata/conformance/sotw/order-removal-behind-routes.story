# A cluster that is gone is listed until the routes that named it have been replaced.
# From: ours

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 v3#1 ledger.prod#1 orders.prod#1

ack cds
----
nothing

send rds names=(egress)
----
rds r3.2 v3#1 egress#1(ledger.prod orders.prod)

ack rds
----
nothing

remove ledger/2
----
rds r5.3 v5#2 egress#2(orders.prod)

add basket/3
----
cds r6.4 v6#2 basket.prod#1 ledger.prod#1 orders.prod#1

ack rds
----
nothing

ack cds
----
rds r6.5 v6#3 egress#3(basket.prod orders.prod)
cds r6.6 v6#3 basket.prod#1 orders.prod#1

ack rds
----
nothing
