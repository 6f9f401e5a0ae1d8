# What a client may not see looks like what is not there, by whatever name and type it asks; it is sent as soon as it may be seen, and gone when it may not any more.
# From: ours

add orders/1 ledger/2
----
nothing

grant ann may=(orders.prod)
----
nothing

open web-1 as=ann upstreams=(orders.prod)
----
nothing

send eds names=(ledger.prod,nothing.prod,orders.prod)
----
eds r4.1 v4#1 orders.prod#1(10.0.0.1) !ledger.prod NotFound !nothing.prod NotFound

ack eds
----
nothing

send cds names=(ledger.prod,nothing.prod)
----
cds r4.2 v4#1 !ledger.prod NotFound !nothing.prod NotFound

ack cds
----
nothing

add ledger/3
----
nothing

grant ann may=(ledger.prod,orders.prod)
----
nothing

wait 2s
----
cds r6.3 v6#2 ledger.prod#1
eds r6.4 v6#2 ledger.prod#1(10.0.0.2 10.0.0.3)

ack eds
----
nothing

ack cds
----
nothing

grant ann may=(orders.prod)
----
nothing

wait 2s
----
cds r7.5 v7#1 !ledger.prod NotFound
eds r7.6 v7#3 !ledger.prod NotFound
