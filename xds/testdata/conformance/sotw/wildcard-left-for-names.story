# Who named nothing and then names something wants that, and not all any more.
# From: xDS protocol, "Wildcard subscriptions"; go-control-plane#1002

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 v3#1 ledger.prod#1 orders.prod#1

ack cds
----
nothing

send cds names=(orders.prod)
----
cds r3.2 v3#2 orders.prod#1

ack cds
----
nothing

add basket/3
----
nothing

add orders/1 check
----
cds r5.3 v5#3 orders.prod#2
