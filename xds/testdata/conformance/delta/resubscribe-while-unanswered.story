# A name that is subscribed to again while its response is under way is answered
# again when that has been answered: one unanswered response per type.
# From: xDS protocol, "Subscribing to Resources"; go-control-plane#431

add orders/1
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.1 orders.prod#1@2(10.0.0.1)

send eds subscribe=(orders.prod)
----
nothing

ack eds
----
eds r2.2 orders.prod#1@2(10.0.0.1)
