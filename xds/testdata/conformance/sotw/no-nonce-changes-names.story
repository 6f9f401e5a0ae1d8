# A request without a nonce answers nothing; the list of names is taken.
# From: xDS protocol, "ACK and NACK semantics"

add orders/1 ledger/2
----
nothing

send eds names=(orders.prod)
----
eds r3.1 v3#1 orders.prod#1(10.0.0.1)

send eds names=(orders.prod,ledger.prod) nonce=none
----
nothing

ack eds
----
eds r3.2 v3#2 ledger.prod#1(10.0.0.2)
