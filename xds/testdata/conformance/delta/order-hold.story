# Nothing waits for another type longer than 15 s.
# From: ours

add orders/1
----
nothing

send cds
----
cds r2.1 orders.prod#1@2

send lds
----
nothing

send rds subscribe=(egress)
----
nothing

wait 14s
----
nothing

wait 1s
----
lds r2.2 egress#1@0
rds r2.3 egress#1@2(orders.prod)
