# What is asked for by name is answered whatever the scope.
# From: ours

open web-1 upstreams=(orders.prod)
----
nothing

add orders/1 ledger/2
----
nothing

send cds names=(ledger.prod)
----
cds r3.1 v3#1 ledger.prod#1

send eds names=(ledger.prod)
----
eds r3.2 v3#1 ledger.prod#1(10.0.0.2)
