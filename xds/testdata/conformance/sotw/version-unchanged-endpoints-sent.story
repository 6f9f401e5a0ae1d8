# Endpoints are sent on the first subscription of each stream, whatever the version: Envoy may have forgotten them.
# From: envoy#22418, #13687

add orders/1
----
nothing

send eds names=(orders.prod)
----
eds r2.1 v2#1 orders.prod#1(10.0.0.1)

ack eds
----
nothing

close
----
nothing

open web-1
----
nothing

send eds names=(orders.prod) version=last
----
eds r2.1 v2#1 orders.prod#1(10.0.0.1)
