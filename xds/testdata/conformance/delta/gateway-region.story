# A gateway is told of the instances of its own region only; others are told of all, by priority.
# From: ours

add orders/1
----
nothing

open web-1
----
nothing

send eds subscribe=(orders.prod) by=web-1
----
eds r2.1 orders.prod#1@2(10.0.0.1)

ack eds by=web-1
----
nothing

open web-2 role=gateway
----
nothing

send eds subscribe=(orders.prod) by=web-2
----
web-2 eds r2.1 orders.prod#1@2(10.0.0.1)

ack eds by=web-2
----
nothing

open web-3 role=gateway region=away
----
nothing

send eds subscribe=(orders.prod) by=web-3
----
web-3 eds r2.1 orders.prod#2@2()

ack eds by=web-3
----
nothing
