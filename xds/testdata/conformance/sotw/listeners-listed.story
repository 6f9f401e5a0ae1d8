# Each response about listeners lists all of the node's; what is not on it is gone.
# From: envoy docs, xDS protocol

add db/1
----
nothing

send lds
----
lds r2.1 v2#1 egress#1

ack lds
----
nothing

listen db/5432
----
lds r3.2 v3#2 egress#1 tcp~db.prod#1

ack lds
----
nothing

listen db/0
----
lds r4.3 v4#1 egress#1
