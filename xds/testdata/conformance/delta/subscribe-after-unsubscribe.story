# A name that is subscribed to after it was unsubscribed from is answered, whatever was sent before.
# From: go-control-plane#431, #1002; envoy#22418

add orders/1
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.1 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

send eds unsubscribe=(orders.prod)
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.2 orders.prod#1@2(10.0.0.1)
