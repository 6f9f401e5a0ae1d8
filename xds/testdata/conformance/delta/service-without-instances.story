# A service without instances has an empty assignment, not none: a new cluster would wait for it.
# From: ours

add orders/1
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.1 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

drop orders/1
----
eds r3.2 orders.prod#2@3()

ack eds
----
nothing

close
----
nothing

open web-1
----
nothing

send eds subscribe=(orders.prod)
----
eds r3.1 orders.prod#2@3()
