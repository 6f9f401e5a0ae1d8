# A host that is a name is never sent, since clients refuse all endpoints of a cluster for it; the others are.
# From: measured with gRPC clients of four languages

add orders/1
----
nothing

add orders/2 host=db.internal
----
nothing

open caller agent=grpc-go
----
nothing

send eds subscribe=(orders.prod)
----
eds r3.1 orders.prod#1@3(10.0.0.1)
