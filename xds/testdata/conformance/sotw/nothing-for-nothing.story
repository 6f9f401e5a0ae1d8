# A change that leaves the bytes as they are is not told.
# From: istio#48025; kuma#17062

add orders/1
----
nothing

send cds
----
cds r2.1 v2#1 orders.prod#1

ack cds
----
nothing

send eds names=(orders.prod)
----
eds r2.2 v2#1 orders.prod#1(10.0.0.1)

ack eds
----
nothing

add orders/1
----
nothing

drop ledger/9
----
nothing
