# Where the policy asks for it, each zone has a view of its own, whose own instances come first.
# From: DESIGN D14

add orders/1 zone=a
----
nothing

add orders/2 zone=b
----
nothing

open web-a zone=a
----
nothing

open web-b zone=b
----
nothing

send eds subscribe=(orders.prod) by=web-a
----
web-a eds r3.1 orders.prod#1@3(10.0.0.1 10.0.0.2)

send eds subscribe=(orders.prod) by=web-b
----
web-b eds r3.1 orders.prod#1@3(10.0.0.1 10.0.0.2)

ack eds by=web-a
----
nothing

ack eds by=web-b
----
nothing

policy orders
{"failover":{"zoneFirst":true}}
----
web-a eds r4.2 orders.prod#2@4(10.0.0.1 1:10.0.0.2)
web-b eds r4.2 orders.prod#3@4(10.0.0.2 1:10.0.0.1)

ack eds by=web-a
----
nothing

ack eds by=web-b
----
nothing

# Of three of one weight the two of zone b have their share, and the one of zone a has not 1/1.4 of it.
add orders/3 orders/4 zone=b
----
web-a eds r5.3 orders.prod#4@5(10.0.0.1 10.0.0.2 10.0.0.3)
web-b eds r5.3 orders.prod#5@5(10.0.0.2 10.0.0.3 1:10.0.0.1)
