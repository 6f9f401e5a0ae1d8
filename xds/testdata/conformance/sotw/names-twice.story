# A name that is listed twice is one name.
# From: xDS protocol

add orders/1
----
nothing

send eds names=(orders.prod,orders.prod)
----
eds r2.1 v2#1 orders.prod#1(10.0.0.1)

ack eds
----
nothing
