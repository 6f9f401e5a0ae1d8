# A gateway has one listener, in which a chain comes behind the cluster that it leads to, and goes before it.
# From: ours

open web-1 role=gateway
----
nothing

send cds
----
cds r1.1

ack cds
----
nothing

send lds
----
lds r1.2 gateway#1@1()

ack lds
----
nothing

send rds subscribe=(gateway)
----
rds r1.3 gateway#1@1()

ack rds
----
nothing

add orders/1
----
cds r2.4 orders.prod#1@2

ack cds
----
rds r2.5 gateway#2@2(orders.prod)

ack rds
----
nothing

add db/1 protocol=tls
----
cds r3.6 db.prod#1@3

ack cds
----
lds r3.7 gateway#2@3(db.prod)
rds r3.8 gateway#3@3(orders.prod)

ack lds
----
nothing

ack rds
----
nothing

remove db/1
----
lds r5.9 gateway#1@5()
rds r5.10 gateway#2@5(orders.prod)

ack rds
----
nothing

ack lds
----
cds r5.11 -db.prod

ack cds
----
nothing
