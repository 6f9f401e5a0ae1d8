# A gRPC client is led from its target's listener to the routes, the cluster and the endpoints of that name, whatever its upstreams are.
# From: gRFC A27

add orders/1
----
nothing

open caller agent=grpc-go upstreams=ledger.prod
----
nothing

send lds subscribe=(orders.prod)
----
lds r2.1 orders.prod#1@2(orders.prod)

ack lds
----
nothing

send rds subscribe=(orders.prod)
----
rds r2.2 orders.prod#1@2(orders.prod)

ack rds
----
nothing

send cds subscribe=(orders.prod)
----
cds r2.3 orders.prod#1@2

send eds subscribe=(orders.prod)
----
eds r2.4 orders.prod#1@2(10.0.0.1)

ack cds
----
nothing

ack eds
----
nothing

add orders/2
----
eds r3.5 orders.prod#2@3(10.0.0.1 10.0.0.2)
