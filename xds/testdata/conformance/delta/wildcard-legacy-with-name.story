# A name that is subscribed to after an empty first request is wanted beside all, not in its place.
# From: xDS protocol, "Wildcard subscriptions"

open web-1 upstreams=(orders.prod)
----
nothing

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 orders.prod#1@2

ack cds
----
nothing

send cds subscribe=(ledger.prod)
----
cds r3.2 ledger.prod#1@3

ack cds
----
nothing

add orders/1 check
----
cds r4.3 orders.prod#2@4
