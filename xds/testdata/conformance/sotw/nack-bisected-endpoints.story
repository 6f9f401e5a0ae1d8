# … of endpoints too: here it is c.
# From: ours

add a/1 b/1 c/1 d/1
----
nothing

send eds names=(a.prod,b.prod,c.prod,d.prod)
----
eds r5.1 v5#1 a.prod#1(10.0.0.1) b.prod#1(10.0.0.1) c.prod#1(10.0.0.1) d.prod#1(10.0.0.1)

nack eds
----
eds r5.2 v5#2 a.prod#1(10.0.0.1) b.prod#1(10.0.0.1)

ack eds
----
eds r5.3 v5#3 c.prod#1(10.0.0.1) d.prod#1(10.0.0.1)

nack eds
----
eds r5.4 v5#4 c.prod#1(10.0.0.1)

nack eds
----
eds r5.5 v5#5 d.prod#1(10.0.0.1)

ack eds
----
nothing

status
----
web-1 eds sent=5 acked=5 in-sync=true silent=false rejected=c.prod
