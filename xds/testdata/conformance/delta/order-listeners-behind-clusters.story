# Listeners wait for the answer to the clusters, as routes do.
# From: ours

add orders/1
----
nothing

send cds
----
cds r2.1 orders.prod#1@2

send lds
----
nothing

ack cds
----
lds r2.2 egress#1@0
