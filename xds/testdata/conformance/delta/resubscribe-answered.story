# A name that is subscribed to again is answered again, though the server has sent
# it on this stream: the client may have dropped it.
# From: xDS protocol, "Subscribing to Resources"; go-control-plane#1450; envoy#22418

add orders/1
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.1 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.2 orders.prod#1@2(10.0.0.1)
