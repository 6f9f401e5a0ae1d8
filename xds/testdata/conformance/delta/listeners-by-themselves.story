# A listener that comes, changes or goes is sent by itself; the others of the node are not sent again.
# From: ours

add db/1
----
nothing

send lds
----
lds r2.1 egress#1@0

ack lds
----
nothing

listen db/5432
----
lds r3.2 tcp~db.prod#1@3

ack lds
----
nothing

listen db/5433
----
lds r4.3 tcp~db.prod#2@4

ack lds
----
nothing

listen db/0
----
lds r5.4 -tcp~db.prod
