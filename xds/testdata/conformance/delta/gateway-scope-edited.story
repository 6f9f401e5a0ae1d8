# The listener of a gateway follows an edit of what it passes on to.
# From: ours

add db/1 cache/1 protocol=tls
----
nothing

open web-1 role=gateway service=shop upstreams=(db.prod)
----
nothing

send cds
----
cds r3.1 db.prod#1@2

ack cds
----
nothing

send lds
----
lds r3.2 gateway#1@3(db.prod)

ack lds
----
nothing

send rds subscribe=(gateway)
----
rds r3.3 gateway#1@3()

ack rds
----
nothing

call wants=(cache.prod)
----
cds r4.4 cache.prod#1@3

ack cds
----
lds r4.5 gateway#2@4(cache.prod)
rds r4.6 gateway#2@4()

ack lds
----
nothing

ack rds
----
cds r4.7 -db.prod

ack cds
----
nothing
