# Endpoints are as the client's region sees them, and are equal for all that share it.
# From: ours

add orders/1
----
nothing

open here-1
----
nothing

open there-1 region=there
----
nothing

open there-2 region=there
----
nothing

send eds subscribe=(orders.prod) by=here-1
----
here-1 eds r2.1 orders.prod#1@2(10.0.0.1)

send eds subscribe=(orders.prod) by=there-1
----
there-1 eds r2.1 orders.prod#1@2(10.0.0.1)

send eds subscribe=(orders.prod) by=there-2
----
there-2 eds r2.1 orders.prod#1@2(10.0.0.1)
