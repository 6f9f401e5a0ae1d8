# A first request for clusters or listeners that subscribes to nothing asks for
# all: of clusters for those of the node's scope, which are what it may call.
# From: xDS protocol, "How the client specifies what resources to return"

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 ledger.prod#1@3 orders.prod#1@2

send lds
----
nothing

ack cds
----
lds r3.2 egress#1@0

ack lds
----
nothing

add basket/3
----
cds r4.3 basket.prod#1@4
