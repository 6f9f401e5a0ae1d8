# A nonce on the first request of a stream is a remainder of an earlier one: the request is a first one.
# From: xDS protocol, "ACK and NACK semantics"

add orders/1
----
nothing

send cds nonce=r77.8
----
cds r2.1 v2#1 orders.prod#1
