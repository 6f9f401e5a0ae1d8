# The endpoints of a new cluster never wait for the ACK of the cluster: Envoy gives it only when it has them.
# From: measured with Envoy 1.40

send cds
----
cds r1.1

ack cds
----
nothing

send eds subscribe=(orders.prod)
----
eds r1.2 -orders.prod !orders.prod NotFound

ack eds
----
nothing

add orders/1
----
cds r2.3 orders.prod#1@2
eds r2.4 orders.prod#1@2(10.0.0.1)
