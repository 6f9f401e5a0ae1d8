# No resource has a TTL: the last known configuration survives a registry that is dead.
# From: ours

add orders/1
----
nothing

send cds
----
cds r2.1 orders.prod#1@2

send eds subscribe=(orders.prod)
----
eds r2.2 orders.prod#1@2(10.0.0.1)

wait 24h
----
nothing
