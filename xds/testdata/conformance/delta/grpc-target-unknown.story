# A target that does not exist is said not to, and is sent when it comes.
# From: gRFC A88

open caller agent=grpc-go
----
nothing

send lds subscribe=(orders.prod)
----
lds r1.1 -orders.prod !orders.prod NotFound

ack lds
----
nothing

add orders/1
----
lds r2.2 orders.prod#1@2(orders.prod)
