# "*" asks for all, as the empty first request does.
# From: xDS protocol, "Wildcard subscriptions"

add orders/1
----
nothing

send cds subscribe=(*)
----
cds r2.1 orders.prod#1@2

ack cds
----
nothing

add ledger/2
----
cds r3.2 ledger.prod#1@3
