# A name that is both subscribed to and unsubscribed from in one request is not wanted.
# From: xDS protocol, "Unsubscribing from Resources" (silent on it); as go-control-plane

add orders/1
----
nothing

send eds subscribe=(orders.prod) unsubscribe=(orders.prod)
----
nothing

add orders/2
----
nothing

send eds subscribe=(orders.prod)
----
eds r3.1 orders.prod#1@3(10.0.0.1 10.0.0.2)
