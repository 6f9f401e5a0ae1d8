# What resource_errors said beside something that was refused is said again with what is not refused.
# From: gRFC A46

add orders/1 ledger/2
----
nothing

send eds names=(ledger.prod,orders.prod)
----
eds r3.1 v3#1 ledger.prod#1(10.0.0.2) orders.prod#1(10.0.0.1)

add orders/3
----
nothing

remove ledger/2
----
nothing

ack eds
----
eds r6.2 v6#2 orders.prod#2(10.0.0.1 10.0.0.3) !ledger.prod NotFound

nack eds
----
eds r6.3 v6#3 !ledger.prod NotFound

ack eds
----
nothing
