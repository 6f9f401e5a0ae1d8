# Other regions come behind the client's, by the mode of the policy; an edit of the mode tells endpoints only.
# From: DESIGN D17

add orders/1
----
nothing

tell east orders/101
----
nothing

open web-1 region=here
----
nothing

open far-1 region=east
----
nothing

send eds subscribe=(orders.prod) by=web-1
----
web-1 eds r5.1 orders.prod#1@5(10.0.0.1 1:10.0.0.101)

send eds subscribe=(orders.prod) by=far-1
----
far-1 eds r5.1 orders.prod#2@5(10.0.0.101 1:10.0.0.1)

ack eds by=web-1
----
nothing

ack eds by=far-1
----
nothing

policy orders
{"failover":{"mode":"local-first"}}
----
web-1 eds r6.2 orders.prod#3@6(10.0.0.1)
far-1 eds r6.2 orders.prod#4@6(10.0.0.101)

ack eds by=web-1
----
nothing

ack eds by=far-1
----
nothing

# Nobody is passing there any more: it is told of us again, and the clients here of nothing.
tell east orders/101 critical
----
far-1 eds r7.3 orders.prod#5@7(10.0.0.101 1:10.0.0.1)

ack eds by=far-1
----
nothing

policy orders
{"failover":{"mode":"merged"}}
----
web-1 eds r8.3 orders.prod#6@8(10.0.0.101 10.0.0.1)
far-1 eds r8.4 orders.prod#6@8(10.0.0.101 10.0.0.1)
