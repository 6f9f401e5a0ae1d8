# While a response is unanswered nothing more of its type is sent; what changes meanwhile comes as one, the latest of it.
# From: ours

add orders/1
----
nothing

send eds names=(orders.prod)
----
eds r2.1 v2#1 orders.prod#1(10.0.0.1)

add orders/2
----
nothing

add orders/3
----
nothing

drop orders/2
----
nothing

ack eds
----
eds r5.2 v5#2 orders.prod#2(10.0.0.1 10.0.0.3)
