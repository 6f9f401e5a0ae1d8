# What the client has in another version is sent.
# From: xDS protocol, "Incremental xDS", initial_resource_versions

add orders/1
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.1 orders.prod#1@2(10.0.0.1)

close
----
nothing

add orders/2
----
nothing

open web-1
----
nothing

send eds subscribe=(orders.prod) initial=(orders.prod)
----
eds r3.1 orders.prod#2@3(10.0.0.1 10.0.0.2)
