# What is asked for by name is answered whatever the scope, for all types.
# From: ours

open web-1 upstreams=(orders.prod)
----
nothing

add orders/1 ledger/2
----
nothing

send cds subscribe=(ledger.prod)
----
cds r3.1 ledger.prod#1@3

send eds subscribe=(ledger.prod)
----
eds r3.2 ledger.prod#1@3(10.0.0.2)
