# What a silent client was told before is listed again with what is new. When it refuses that, both are suspects.
# From: ours

send cds
----
cds r1.1 v1#1

ack cds
----
nothing

add orders/1
----
cds r2.2 v2#2 orders.prod#1

wait 15s
----
nothing

add ledger/2
----
cds r3.3 v3#3 ledger.prod#1 orders.prod#1

nack cds nonce=r2.2
----
nothing

nack cds
----
cds r3.4 v3#4 ledger.prod#1

ack cds
----
nothing

status
----
web-1 cds sent=3 acked=3 in-sync=true silent=false rejected=orders.prod
