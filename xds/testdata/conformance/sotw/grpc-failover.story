# A gRPC client has the regions that take calls in its first priority; the others are behind it.
# From: ours

add orders/1
----
nothing

tell east orders/101
----
nothing

open app-1 agent=grpc-go region=east
----
nothing

send eds names=(orders.prod)
----
eds r5.1 v5#1 orders.prod#1(10.0.0.101 1:10.0.0.1)

ack eds
----
nothing

# Half of its region cannot be called: the other one has a share.
tell east orders/102 critical
----
eds r6.2 v6#2 orders.prod#2(10.0.0.101 10.0.0.1)

ack eds
----
nothing

policy orders
{"failover":{"mode":"local-only"}}
----
eds r7.3 v7#3 orders.prod#3(10.0.0.101)
