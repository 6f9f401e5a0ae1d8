# What a node is told of moves with an edit of its service's upstreams, on its stream: clusters come before the routes to them, and routes go before their clusters.
# From: ours

open web-1 service=shop upstreams=(orders.prod)
----
nothing

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 orders.prod#1@2

ack cds
----
nothing

send rds subscribe=(egress)
----
rds r3.2 egress#1@3(orders.prod)

ack rds
----
nothing

# The new cluster comes before the routes, and the old one goes behind them.
call wants=(ledger.prod)
----
cds r4.3 ledger.prod#1@3

ack cds
----
rds r4.4 egress#2@4(ledger.prod)

ack rds
----
cds r4.5 -orders.prod

ack cds
----
nothing
