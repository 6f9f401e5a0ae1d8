# A gRPC client is led to the targets that it may see; one that it may not is one that is not there.
# From: ours

add orders/1 ledger/2
----
nothing

grant ann may=(orders.prod)
----
nothing

open web-1 as=ann agent=grpc-go
----
nothing

send lds subscribe=(ledger.prod,orders.prod)
----
lds r4.1 orders.prod#1@4(orders.prod) -ledger.prod !ledger.prod NotFound

ack lds
----
nothing

send rds subscribe=(ledger.prod,orders.prod)
----
rds r4.2 orders.prod#1@4(orders.prod) -ledger.prod !ledger.prod NotFound
