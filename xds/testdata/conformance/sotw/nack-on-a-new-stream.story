# A client that comes with a version and refuses all that is new to it is sent what is left, so that it drops what is gone.
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

close
----
nothing

remove orders/1
----
nothing

add ledger/2
----
nothing

open web-1
----
nothing

send cds version=last
----
cds r5.1 v5#2 ledger.prod#1

nack cds
----
cds r5.2 v5#3

ack cds
----
nothing
