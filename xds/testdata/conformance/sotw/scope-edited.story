# What a node is told of moves with an edit of its service's upstreams, on its stream: until the routes have left it, an old cluster is listed with the new ones.
# From: ours

open web-1 service=shop upstreams=(orders.prod)
----
nothing

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 v3#1 orders.prod#1

ack cds
----
nothing

send rds names=(egress)
----
rds r3.2 v3#1 egress#1(orders.prod)

ack rds
----
nothing

# The new cluster comes before the routes, and the old one goes behind them.
call wants=(ledger.prod)
----
cds r4.3 v4#2 ledger.prod#1 orders.prod#1

ack cds
----
rds r4.4 v4#2 egress#2(ledger.prod)

ack rds
----
cds r4.5 v4#3 ledger.prod#1

ack cds
----
nothing
