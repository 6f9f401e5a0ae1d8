# What a client is told of moves with its rights, on its stream: clusters come before the routes to them, and routes go before their clusters.
# From: ours

add orders/1 ledger/2
----
nothing

grant ann may=(orders.prod)
----
nothing

open web-1 as=ann
----
nothing

send cds
----
cds r4.1 v4#1 orders.prod#1

ack cds
----
nothing

send rds names=(egress)
----
rds r4.2 v4#1 egress#1(orders.prod)

ack rds
----
nothing

grant ann may=(ledger.prod)
----
nothing

wait 2s
----
cds r5.3 v5#2 ledger.prod#1 orders.prod#1

ack cds
----
rds r5.4 v5#2 egress#2(ledger.prod)

ack rds
----
cds r5.5 v5#3 ledger.prod#1

ack cds
----
nothing
