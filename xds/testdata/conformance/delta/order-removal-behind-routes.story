# A cluster that is gone leaves after the routes that named it are accepted: a route without its cluster answers 503.
# From: ours

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 ledger.prod#1@3 orders.prod#1@2

ack cds
----
nothing

send rds subscribe=(egress)
----
rds r3.2 egress#1@3(ledger.prod orders.prod)

ack rds
----
nothing

remove ledger/2
----
rds r5.3 egress#2@5(orders.prod)

ack rds
----
cds r5.4 -ledger.prod
