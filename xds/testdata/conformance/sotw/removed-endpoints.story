# That endpoints are gone can be said in resource_errors only.
# From: gRFC A88

add orders/1
----
nothing

send eds names=(orders.prod)
----
eds r2.1 v2#1 orders.prod#1(10.0.0.1)

ack eds
----
nothing

remove orders/1
----
eds r3.2 v3#2 orders.prod#2()

ack eds
----
eds r4.3 v4#3 !orders.prod NotFound

ack eds
----
nothing

add orders/1
----
eds r5.4 v5#1 orders.prod#1(10.0.0.1)
