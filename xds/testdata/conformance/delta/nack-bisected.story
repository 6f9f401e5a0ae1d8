# Of a batch that is refused the culprit is found by halves, since the client's words often do not name it: here it is c.
# From: measured with Envoy 1.40

add a/1 b/1 c/1 d/1
----
nothing

send cds
----
cds r5.1 a.prod#1@2 b.prod#1@3 c.prod#1@4 d.prod#1@5

nack cds
----
cds r5.2 a.prod#1@2 b.prod#1@3

ack cds
----
cds r5.3 c.prod#1@4 d.prod#1@5

nack cds
----
cds r5.4 c.prod#1@4

nack cds
----
cds r5.5 d.prod#1@5

ack cds
----
nothing

status
----
web-1 cds sent=5 acked=5 in-sync=true silent=false rejected=c.prod
