# Endpoints of a service that is gone are listed as removed.
# From: xDS protocol, "Incremental xDS"; istio#41494

add orders/1
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.1 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

remove orders/1
----
eds r3.2 orders.prod#2@3()

ack eds
----
eds r4.3 -orders.prod
