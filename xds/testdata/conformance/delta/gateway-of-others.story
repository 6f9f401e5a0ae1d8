# What is a gateway's nobody else is told of, and what is a sidecar's no gateway is.
# From: ours

add orders/1
----
nothing

open web-1
----
nothing

send lds subscribe=(egress,gateway) by=web-1
----
lds r2.1 egress#1@0 -gateway !gateway NotFound

ack lds by=web-1
----
nothing

send rds subscribe=(egress,gateway) by=web-1
----
rds r2.2 egress#1@2(orders.prod) -gateway !gateway NotFound

ack rds by=web-1
----
nothing

open web-2 role=gateway
----
nothing

send lds subscribe=(egress,gateway) by=web-2
----
web-2 lds r2.1 gateway#1@2() -egress !egress NotFound

ack lds by=web-2
----
nothing

send rds subscribe=(egress,gateway) by=web-2
----
web-2 rds r2.2 gateway#1@2(orders.prod) -egress !egress NotFound

ack rds by=web-2
----
nothing
