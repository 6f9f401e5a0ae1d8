# Endpoints may come in parts, each after the ACK of the one before.
# From: gRPC takes 4 MiB at most

member response-bytes=400
----
nothing

add a/1 b/1 c/1 d/1 e/1
----
nothing

send eds names=(a.prod,b.prod,c.prod,d.prod,e.prod)
----
eds r6.1 v6#1 a.prod#1(10.0.0.1) b.prod#1(10.0.0.1) c.prod#1(10.0.0.1)

ack eds
----
eds r6.2 v6#2 d.prod#1(10.0.0.1) e.prod#1(10.0.0.1)

ack eds
----
nothing
