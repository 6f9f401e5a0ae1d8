# A new cluster that was refused has no last good content and is left out.
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

add orders/1
----
cds r3.2 v3#2 ledger.prod#1 orders.prod#1

nack cds
----
nothing

add basket/3
----
cds r4.3 v4#3 basket.prod#1 ledger.prod#1
