# Of several new clusters that are refused the culprit is found by halves: here it is b.
# From: measured with Envoy 1.40

add a/1 b/1 c/1 d/1
----
nothing

send cds
----
cds r5.1 v5#1 a.prod#1 b.prod#1 c.prod#1 d.prod#1

nack cds
----
cds r5.2 v5#2 a.prod#1 b.prod#1

nack cds
----
cds r5.3 v5#3 a.prod#1

ack cds
----
cds r5.4 v5#2 a.prod#1 b.prod#1

nack cds
----
cds r5.5 v5#4 a.prod#1 c.prod#1 d.prod#1

ack cds
----
nothing

status
----
web-1 cds sent=5 acked=5 in-sync=true silent=false rejected=b.prod
