# A request that says nothing new is an ACK and no question: answering it would go round in circles.
# From: go-control-plane#46

add orders/1
----
nothing

send cds
----
cds r2.1 v2#1 orders.prod#1

ack cds
----
nothing

ack cds
----
nothing

send eds names=(orders.prod)
----
eds r2.2 v2#1 orders.prod#1(10.0.0.1)

ack eds
----
nothing

ack eds
----
nothing
