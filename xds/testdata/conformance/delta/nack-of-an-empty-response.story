# A NACK of a response without anything new is answered by nothing.
# From: ours

send cds
----
cds r1.1

nack cds
----
nothing

wait 1h
----
nothing

add orders/1
----
cds r2.2 orders.prod#1@2
