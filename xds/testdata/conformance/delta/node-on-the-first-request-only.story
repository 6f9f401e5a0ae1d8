# The node is read from the first request; the others need none, and one that comes is passed over.
# From: measured with Envoy 1.40

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

send eds subscribe=(orders.prod) node
----
eds r3.2 orders.prod#1@2(10.0.0.1)

add basket/1
----
nothing
