# A first request for clusters or listeners that names nothing asks for all: of
# clusters for those of the node's scope, which are what it may call.
# From: xDS protocol, "How the client specifies what resources to return"

open web-1 upstreams=(orders.prod,basket.prod)
----
nothing

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 v3#1 orders.prod#1

ack cds
----
nothing

send lds
----
lds r3.2 v3#1 egress#1

ack lds
----
nothing

add basket/3
----
cds r4.3 v4#2 basket.prod#1 orders.prod#1
