# Who comes back to what it has refused is told its last good content; where there is none, that there is none for it.
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

add orders/3
----
eds r4.2 v4#2 orders.prod#2(10.0.0.1 10.0.0.3)

nack eds
----
nothing

send eds names=(ledger.prod)
----
eds r4.3 v4#3 ledger.prod#1(10.0.0.2)

nack eds
----
nothing

send eds names=(orders.prod)
----
eds r4.4 v4#1 orders.prod#1(10.0.0.1)

ack eds
----
nothing

send eds names=(ledger.prod,orders.prod)
----
eds r4.5 v4#4 !ledger.prod FailedPrecondition
