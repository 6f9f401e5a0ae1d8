# A NACK is an answer: routes go on behind it.
# From: ours

send cds
----
cds r1.1 v1#1

ack cds
----
nothing

send rds names=(egress)
----
rds r1.2 v1#1 egress#1()

ack rds
----
nothing

add orders/1
----
cds r2.3 v2#2 orders.prod#1

nack cds
----
rds r2.4 v2#2 egress#2(orders.prod)
