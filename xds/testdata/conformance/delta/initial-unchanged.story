# What the client says to have, with the version that holds, is not sent to it again: of no type.
# From: measured with Envoy 1.40

add orders/1
----
nothing

send cds
----
cds r2.1 orders.prod#1@2

ack cds
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.2 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

send lds
----
lds r2.3 egress#1@0

ack lds
----
nothing

send rds subscribe=(egress)
----
rds r2.4 egress#1@2(orders.prod)

ack rds
----
nothing

close
----
nothing

open web-1
----
nothing

send cds initial=(orders.prod)
----
nothing

send eds subscribe=(orders.prod) initial=(orders.prod)
----
nothing

send lds initial=(egress)
----
nothing

send rds subscribe=(egress) initial=(egress)
----
nothing

add orders/2
----
eds r3.1 orders.prod#2@3(10.0.0.1 10.0.0.2)
