# A name that comes back to the list is answered, whatever was sent before.
# From: go-control-plane#431, #1002, #585

add orders/1 ledger/2
----
nothing

send eds names=(orders.prod,ledger.prod)
----
eds r3.1 v3#1 ledger.prod#1(10.0.0.2) orders.prod#1(10.0.0.1)

ack eds
----
nothing

send eds names=(ledger.prod)
----
nothing

send eds names=(orders.prod,ledger.prod)
----
eds r3.2 v3#2 orders.prod#1(10.0.0.1)
