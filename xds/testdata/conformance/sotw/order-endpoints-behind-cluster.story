# The endpoints of a new cluster never wait for the ACK of the cluster: Envoy gives it only when it has them.
# From: measured with Envoy 1.40

send cds
----
cds r1.1 v1#1

ack cds
----
nothing

send eds names=(orders.prod)
----
eds r1.2 v1#1 !orders.prod NotFound

ack eds
----
nothing

add orders/1
----
cds r2.3 v2#2 orders.prod#1
eds r2.4 v2#2 orders.prod#1(10.0.0.1)
