# No two responses of a stream have one nonce, of whatever type and revision.
# From: xDS protocol, "ACK and NACK semantics"

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 v3#1 ledger.prod#1 orders.prod#1

send eds names=(orders.prod)
----
eds r3.2 v3#1 orders.prod#1(10.0.0.1)

ack eds names=(orders.prod,ledger.prod)
----
eds r3.3 v3#2 ledger.prod#1(10.0.0.2)
