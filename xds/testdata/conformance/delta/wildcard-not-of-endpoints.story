# There is no "all" of endpoints and routes: asking for nothing is answered by nothing, and "*" is no name.
# From: xDS protocol, "How the client specifies what resources to return"

add orders/1
----
nothing

send eds
----
nothing

send eds subscribe=(*)
----
nothing

send rds subscribe=(*)
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.1 orders.prod#1@2(10.0.0.1)
