# A cluster that is gone waits for the routes no longer than 15 s.
# From: ours

add ledger/2
----
nothing

send cds
----
cds r2.1 ledger.prod#1@2

ack cds
----
nothing

send rds subscribe=(egress)
----
rds r2.2 egress#1@2(ledger.prod)

ack rds
----
nothing

remove ledger/2
----
rds r4.3 egress#2@4()

wait 14s
----
nothing

wait 1s
----
cds r4.4 -ledger.prod
