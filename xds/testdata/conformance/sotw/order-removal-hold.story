# It is listed no longer than 15 s.
# From: ours

add ledger/2
----
nothing

send cds
----
cds r2.1 v2#1 ledger.prod#1

ack cds
----
nothing

send rds names=(egress)
----
rds r2.2 v2#1 egress#1(ledger.prod)

ack rds
----
nothing

remove ledger/2
----
rds r4.3 v4#2 egress#2()

wait 14s
----
nothing

wait 1s
----
cds r4.4 v4#2
