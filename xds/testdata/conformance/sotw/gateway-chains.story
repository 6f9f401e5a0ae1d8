# A gateway has one listener, in which a chain comes behind the cluster that it leads to, and goes before it.
# From: ours

open web-1 role=gateway
----
nothing

send cds
----
cds r1.1 v1#1

ack cds
----
nothing

send lds
----
lds r1.2 v1#1 gateway#1()

ack lds
----
nothing

send rds names=(gateway)
----
rds r1.3 v1#1 gateway#1()

ack rds
----
nothing

add orders/1
----
cds r2.4 v2#2 orders.prod#1

ack cds
----
rds r2.5 v2#2 gateway#2(orders.prod)

ack rds
----
nothing

add db/1 protocol=tls
----
cds r3.6 v3#3 db.prod#1 orders.prod#1

ack cds
----
lds r3.7 v3#2 gateway#2(db.prod)
rds r3.8 v3#3 gateway#3(orders.prod)

ack lds
----
nothing

ack rds
----
nothing

remove db/1
----
lds r5.9 v5#1 gateway#1()
rds r5.10 v5#2 gateway#2(orders.prod)

ack rds
----
nothing

ack lds
----
cds r5.11 v5#2 orders.prod#1

ack cds
----
nothing
