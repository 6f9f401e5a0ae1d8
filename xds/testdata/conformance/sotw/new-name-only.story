# Of endpoints a new name is answered with what is new, not with all.
# From: ours

add orders/1 ledger/2
----
nothing

send eds names=(orders.prod)
----
eds r3.1 v3#1 orders.prod#1(10.0.0.1)

ack eds
----
nothing

send eds names=(orders.prod,ledger.prod)
----
eds r3.2 v3#2 ledger.prod#1(10.0.0.2)
