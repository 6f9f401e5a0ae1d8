# A request with an older nonce is passed over, with its names: another one will follow.
# From: xDS protocol, "ACK and NACK semantics"

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

send eds names=(ledger.prod) nonce=r3.1
----
nothing

add orders/4
----
nothing

ack eds nonce=r4.2 names=(orders.prod,ledger.prod)
----
eds r5.3 v5#3 ledger.prod#1(10.0.0.2) orders.prod#3(10.0.0.1 10.0.0.3 10.0.0.4)
