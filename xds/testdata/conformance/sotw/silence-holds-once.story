# Behind a client that has been silent about clusters listeners and routes do not wait a second time, until it answers again.
# From: measured with Envoy 1.40

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 v3#1 ledger.prod#1 orders.prod#1

send rds names=(egress)
----
nothing

wait 15s
----
rds r3.2 v3#1 egress#1(ledger.prod orders.prod)

ack rds
----
nothing

add basket/3
----
cds r4.3 v4#2 basket.prod#1 ledger.prod#1 orders.prod#1
rds r4.4 v4#2 egress#2(basket.prod ledger.prod orders.prod)

ack rds
----
nothing

ack cds
----
nothing
