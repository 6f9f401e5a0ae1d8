# Routes that name a new cluster wait until the client has answered the clusters.
# From: ours

send cds
----
cds r1.1

ack cds
----
nothing

send rds subscribe=(egress)
----
rds r1.2 egress#1@1()

ack rds
----
nothing

add orders/1
----
cds r2.3 orders.prod#1@2

ack cds
----
rds r2.4 egress#2@2(orders.prod)
