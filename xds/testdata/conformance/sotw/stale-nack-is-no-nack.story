# A NACK with an older nonce refuses nothing.
# From: xDS protocol, "ACK and NACK semantics"

add orders/1
----
nothing

send eds names=(orders.prod)
----
eds r2.1 v2#1 orders.prod#1(10.0.0.1)

ack eds
----
nothing

add orders/2
----
eds r3.2 v3#2 orders.prod#2(10.0.0.1 10.0.0.2)

nack eds nonce=r2.1
----
nothing

status
----
web-1 eds sent=3 acked=2 in-sync=false silent=false

ack eds nonce=r3.2
----
nothing

status
----
web-1 eds sent=3 acked=3 in-sync=true silent=false
