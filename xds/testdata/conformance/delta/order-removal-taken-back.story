# A cluster that comes back while its removal waits is not removed.
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

add ledger/2
----
nothing

ack rds
----
rds r5.4 egress#1@5(ledger.prod)

ack rds
----
nothing
