# An empty first request can be taken back by unsubscribing from "*", too.
# From: xDS protocol, "Wildcard subscriptions"

add orders/1
----
nothing

send cds
----
cds r2.1 orders.prod#1@2

ack cds
----
nothing

send cds unsubscribe=(*)
----
nothing

add ledger/2
----
nothing
