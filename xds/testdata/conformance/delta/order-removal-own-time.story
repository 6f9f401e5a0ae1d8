# Each cluster that is gone has its own time to wait: that of one does not take another with it, to which routes lead yet.
# From: ours

add ledger/1 orders/2 basket/3
----
nothing

send cds
----
cds r4.1 basket.prod#1@4 ledger.prod#1@2 orders.prod#1@3

ack cds
----
nothing

send rds subscribe=(egress)
----
rds r4.2 egress#1@4(basket.prod ledger.prod orders.prod)

remove ledger/1
----
nothing

wait 10s
----
nothing

ack rds
----
rds r6.3 egress#2@6(basket.prod orders.prod)

remove orders/2
----
nothing

wait 10s
----
cds r8.4 -ledger.prod

ack rds
----
nothing

ack cds
----
rds r8.5 egress#3@8(basket.prod)

ack rds
----
cds r8.6 -orders.prod
