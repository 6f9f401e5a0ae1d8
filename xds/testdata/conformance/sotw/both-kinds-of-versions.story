# Deltas name each resource's version, the state of the world the set's: an EDS-only change leaves the version of the clusters as it is.
# From: java-control-plane#89

add orders/1
----
nothing

send cds
----
cds r2.1 v2#1 orders.prod#1

ack cds
----
nothing

send eds names=(orders.prod)
----
eds r2.2 v2#1 orders.prod#1(10.0.0.1)

ack eds
----
nothing

add orders/2
----
eds r3.3 v3#2 orders.prod#2(10.0.0.1 10.0.0.2)

ack eds
----
nothing

close
----
nothing

open web-1
----
nothing

send cds version=last
----
nothing
