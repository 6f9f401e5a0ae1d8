# A NACK is an answer: routes go on behind it.
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

nack cds
----
rds r2.4 egress#2@2(orders.prod)
