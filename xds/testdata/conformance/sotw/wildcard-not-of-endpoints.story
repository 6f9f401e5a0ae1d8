# There is no "all" of endpoints and routes: who names none gets none, at once.
# From: xDS protocol, "How the client specifies what resources to return"

add orders/1
----
nothing

send eds names=()
----
eds r2.1 v2#1

ack eds
----
nothing

send rds names=(*)
----
rds r2.2 v2#1

ack rds
----
nothing

send eds names=(orders.prod)
----
eds r2.3 v2#2 orders.prod#1(10.0.0.1)
