# A response that would be larger than clients take is split; the next part follows the ACK.
# From: gRPC takes 4 MiB at most

member response-bytes=2500
----
nothing

add a/1 b/1 c/1 d/1 e/1
----
nothing

send cds
----
cds r6.1 a.prod#1@2 b.prod#1@3 c.prod#1@4

ack cds
----
cds r6.2 d.prod#1@5 e.prod#1@6

ack cds
----
nothing

ack cds
----
nothing

ack cds
----
nothing
