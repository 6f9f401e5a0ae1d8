# A cluster whose bytes change brings its endpoints along, though they have not changed: Envoy waits for them and does not ask.
# From: envoy#13009, #5168

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 v3#1 ledger.prod#1 orders.prod#1

ack cds
----
nothing

send eds names=(orders.prod,ledger.prod)
----
eds r3.2 v3#1 ledger.prod#1(10.0.0.2) orders.prod#1(10.0.0.1)

ack eds
----
nothing

add orders/1 check
----
cds r4.3 v4#2 ledger.prod#1 orders.prod#2
eds r4.4 v4#2 orders.prod#1(10.0.0.1)

ack eds
----
nothing

ack cds
----
nothing
