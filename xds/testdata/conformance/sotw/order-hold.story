# Nothing waits for another type longer than 15 s.
# From: ours

add orders/1
----
nothing

send cds
----
cds r2.1 v2#1 orders.prod#1

send lds
----
nothing

send rds names=(egress)
----
nothing

wait 14s
----
nothing

wait 1s
----
lds r2.2 v2#1 egress#1
rds r2.3 v2#1 egress#1(orders.prod)
