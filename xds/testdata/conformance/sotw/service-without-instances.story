# A service without instances has an empty assignment, not none: a new cluster would wait for it.
# From: ours

add orders/1
----
nothing

send eds names=(orders.prod)
----
eds r2.1 v2#1 orders.prod#1(10.0.0.1)

ack eds
----
nothing

drop orders/1
----
eds r3.2 v3#2 orders.prod#2()
