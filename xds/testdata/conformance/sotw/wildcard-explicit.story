# "*" asks for all, as the empty first request does; names beside it are answered too.
# From: xDS protocol, "Wildcard subscriptions"

open web-1 upstreams=(orders.prod)
----
nothing

add orders/1 ledger/2
----
nothing

send cds names=(*)
----
cds r3.1 v3#1 orders.prod#1

ack cds names=(*,ledger.prod)
----
cds r3.2 v3#2 ledger.prod#1 orders.prod#1

ack cds
----
nothing

add ledger/2 check
----
cds r4.3 v4#3 ledger.prod#2 orders.prod#1
