# What waits later has its own 15 s: routes that once waited too long, for one response of clusters after the other, do not run ahead from then on.
# From: ours

add orders/1
----
nothing

send cds
----
cds r2.1 v2#1 orders.prod#1

send rds names=(egress)
----
nothing

wait 8s
----
nothing

add ledger/2
----
nothing

ack cds
----
cds r3.2 v3#2 ledger.prod#1 orders.prod#1

wait 8s
----
rds r3.3 v3#1 egress#1(ledger.prod orders.prod)

ack cds
----
nothing

ack rds
----
nothing

add basket/3
----
cds r4.4 v4#3 basket.prod#1 ledger.prod#1 orders.prod#1

ack cds
----
rds r4.5 v4#2 egress#2(basket.prod ledger.prod orders.prod)
