# No two responses of a stream have one nonce, of whatever type and revision.
# From: xDS protocol, "ACK and NACK semantics"

add orders/1
----
nothing

send cds
----
cds r2.1 orders.prod#1@2

send eds subscribe=(orders.prod)
----
eds r2.2 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.3 orders.prod#1@2(10.0.0.1)
