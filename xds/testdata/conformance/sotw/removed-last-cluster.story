# When the last one is gone, the response is empty.
# From: xDS protocol, "State of the World"

add ledger/2
----
nothing

send cds
----
cds r2.1 v2#1 ledger.prod#1

ack cds
----
nothing

remove ledger/2
----
cds r4.2 v4#2
