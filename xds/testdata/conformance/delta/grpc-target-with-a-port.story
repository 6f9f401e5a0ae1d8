# A port in a target says nothing: its listener has the name that was asked for, and leads to the routes of the name without the port.
# From: gRFC A27

add orders/1
----
nothing

open caller agent=grpc-go
----
nothing

send lds subscribe=(orders.prod:8080)
----
lds r2.1 orders.prod:8080#1@2(orders.prod)
