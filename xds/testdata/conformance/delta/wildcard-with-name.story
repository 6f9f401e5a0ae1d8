# "*" and a name beside it: the name is answered though it is not of the scope.
# From: xDS protocol, "Wildcard subscriptions"

open web-1 upstreams=(orders.prod)
----
nothing

add orders/1 ledger/2
----
nothing

send cds subscribe=(*,ledger.prod)
----
cds r3.1 ledger.prod#1@3 orders.prod#1@2

ack cds
----
nothing

# A change of either is told.
add orders/1 ledger/2 check
----
cds r4.2 orders.prod#2@4

ack cds
----
cds r5.3 ledger.prod#2@5
