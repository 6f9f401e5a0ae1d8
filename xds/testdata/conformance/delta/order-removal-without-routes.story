# Where the client has no routes of ours a cluster leaves at once.
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

remove ledger/2
----
cds r4.2 -ledger.prod
