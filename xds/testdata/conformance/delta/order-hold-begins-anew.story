# What waits later has its own 15 s: routes that once waited too long, for one response of clusters after the other, do not run ahead from then on.
# From: ours

add orders/1
----
nothing

send cds
----
cds r2.1 orders.prod#1@2

send rds subscribe=(egress)
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
cds r3.2 ledger.prod#1@3

wait 8s
----
rds r3.3 egress#1@3(ledger.prod orders.prod)

ack cds
----
nothing

ack rds
----
nothing

add basket/3
----
cds r4.4 basket.prod#1@4

ack cds
----
rds r4.5 egress#2@4(basket.prod ledger.prod orders.prod)
