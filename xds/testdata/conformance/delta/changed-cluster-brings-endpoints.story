# A cluster whose bytes change brings its endpoints along, though they have not changed: Envoy waits for them and does not ask.
# From: envoy#13009; go-control-plane#245, #583, PR#981; measured with Envoy 1.40

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 ledger.prod#1@3 orders.prod#1@2

ack cds
----
nothing

send eds subscribe=(orders.prod,ledger.prod)
----
eds r3.2 ledger.prod#1@3(10.0.0.2) orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

add orders/1 check
----
cds r4.3 orders.prod#2@4
eds r4.4 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

ack cds
----
nothing
