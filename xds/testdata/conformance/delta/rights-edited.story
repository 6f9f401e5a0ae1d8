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
cds r4.1 orders.prod#1@2

ack cds
----
nothing

send rds subscribe=(egress)
----
rds r4.2 egress#1@4(orders.prod)

ack rds
----
nothing

grant ann may=(ledger.prod)
----
nothing

wait 2s
----
cds r5.3 ledger.prod#1@3

ack cds
----
rds r5.4 egress#2@5(ledger.prod)

ack rds
----
cds r5.5 -orders.prod

ack cds
----
nothing
