# An empty list after names asks for nothing: it is no wildcard, and is not answered.
# From: xDS protocol, "How the client specifies what resources to return"

add orders/1 ledger/2
----
nothing

send cds names=(orders.prod)
----
cds r3.1 v3#1 orders.prod#1

ack cds
----
nothing

send cds names=()
----
nothing

add basket/3
----
nothing

add orders/1 check
----
nothing
