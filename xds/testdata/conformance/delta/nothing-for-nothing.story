# A change that leaves the bytes as they are is not told: a second lease, a heartbeat, the same again.
# From: istio#48025; kuma#17062

add orders/1
----
nothing

send cds
----
cds r2.1 orders.prod#1@2

ack cds
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.2 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

add orders/1
----
nothing

add ledger/2
----
cds r4.3 ledger.prod#1@4
