# A client that comes with the version of the set that holds is not sent clusters, listeners and routes again.
# From: ours

add orders/1
----
nothing

send cds
----
cds r2.1 v2#1 orders.prod#1

ack cds
----
nothing

send lds
----
lds r2.2 v2#1 egress#1

ack lds
----
nothing

send rds names=(egress)
----
rds r2.3 v2#1 egress#1(orders.prod)

ack rds
----
nothing

close
----
nothing

open web-1
----
nothing

send cds version=last
----
nothing

send lds version=last
----
nothing

send rds names=(egress) version=last
----
nothing

add ledger/2
----
cds r3.1 v3#2 ledger.prod#1 orders.prod#1
