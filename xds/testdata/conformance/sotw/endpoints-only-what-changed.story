# A response of endpoints has what has changed, and the others stay.
# From: xDS protocol, "State of the World"; java-control-plane#89

add orders/1 ledger/2
----
nothing

send eds names=(orders.prod,ledger.prod)
----
eds r3.1 v3#1 ledger.prod#1(10.0.0.2) orders.prod#1(10.0.0.1)

ack eds
----
nothing

add orders/3
----
eds r4.2 v4#2 orders.prod#2(10.0.0.1 10.0.0.3)
