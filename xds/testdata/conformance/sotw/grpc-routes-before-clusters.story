# A gRPC client asks for its cluster when it has the routes: they do not wait for clusters that nobody has asked for.
# From: gRFC A27

add orders/1
----
nothing

open caller agent=grpc-go
----
nothing

send rds names=(orders.prod)
----
rds r2.1 v2#1 orders.prod#1(orders.prod)

ack rds
----
nothing

send cds names=(orders.prod)
----
cds r2.2 v2#1 orders.prod#1
