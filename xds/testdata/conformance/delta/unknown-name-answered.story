# A name that does not exist is answered at once: as removed, and as NOT_FOUND for
# clients that read resource errors. Silence would cost them their 15 s.
# From: go-control-plane#565; gRFC A88

send eds subscribe=(nobody.prod)
----
eds r1.1 -nobody.prod !nobody.prod NotFound

send cds subscribe=(nobody.prod)
----
cds r1.2 -nobody.prod !nobody.prod NotFound

ack cds
----
nothing

send lds subscribe=(nobody)
----
lds r1.3 -nobody !nobody NotFound

send rds subscribe=(nobody)
----
rds r1.4 -nobody !nobody NotFound
