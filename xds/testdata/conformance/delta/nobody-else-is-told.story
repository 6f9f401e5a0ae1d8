# A change is told to those who subscribe to it and to nobody else.
# From: ours

add orders/1 ledger/2
----
nothing

open web-1
----
nothing

open web-2
----
nothing

send eds subscribe=(orders.prod) by=web-1
----
web-1 eds r3.1 orders.prod#1@2(10.0.0.1)

send eds subscribe=(ledger.prod) by=web-2
----
web-2 eds r3.1 ledger.prod#1@3(10.0.0.2)

ack eds by=web-1
----
nothing

ack eds by=web-2
----
nothing

add orders/3
----
web-1 eds r4.2 orders.prod#2@4(10.0.0.1 10.0.0.3)
