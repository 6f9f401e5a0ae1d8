# A cluster goes when the client has answered that the listener which led to it is gone.
# From: ours

listen db/5432
----
nothing

add db/1
----
nothing

send cds
----
cds r3.1 db.prod#1@3

ack cds
----
nothing

send lds
----
lds r3.2 egress#1@0 tcp~db.prod#1@3

ack lds
----
nothing

remove db/1
----
lds r5.3 -tcp~db.prod

ack lds
----
cds r5.4 -db.prod
