# Of two services that would have one name in lower case a client is told of the one that has it, if it may see that one; when the name goes to the other, that one is asked for.
# From: ours

add orders/1 Orders/2
----
nothing

grant ann may=(Orders.prod)
----
nothing

open web-1 as=ann
----
nothing

send eds subscribe=(orders.prod)
----
eds r4.1 -orders.prod !orders.prod NotFound

ack eds
----
nothing

# What it is made of is the same for both, so that there is nothing to be seen in it but whose it is.
send cds subscribe=(orders.prod)
----
cds r4.2 -orders.prod !orders.prod NotFound

ack cds
----
nothing

remove orders/1
----
cds r6.3 orders.prod#1@3
eds r6.4 orders.prod#1@3(10.0.0.2)
