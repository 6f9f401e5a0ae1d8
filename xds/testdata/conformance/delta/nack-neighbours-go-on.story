# What was refused holds nobody else up.
# From: gRFC A46

add orders/1 ledger/2
----
nothing

send eds subscribe=(orders.prod,ledger.prod)
----
eds r3.1 ledger.prod#1@3(10.0.0.2) orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

add orders/3
----
eds r4.2 orders.prod#2@4(10.0.0.1 10.0.0.3)

nack eds
----
nothing

add ledger/4
----
eds r5.3 ledger.prod#2@5(10.0.0.2 10.0.0.4)
