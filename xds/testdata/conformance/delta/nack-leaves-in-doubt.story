# Some clients take the rest of a response that they refuse, some do not: what is good is sent again, also where it is what the client had before.
# From: gRFC A46

add a/1 b/1 c/1
----
nothing

send eds subscribe=(a.prod,b.prod,c.prod)
----
eds r4.1 a.prod#1@2(10.0.0.1) b.prod#1@3(10.0.0.1) c.prod#1@4(10.0.0.1)

ack eds
----
nothing

add c/2
----
eds r5.2 c.prod#2@5(10.0.0.1 10.0.0.2)

add a/2 b/2
----
nothing

ack eds
----
eds r7.3 a.prod#2@6(10.0.0.1 10.0.0.2) b.prod#2@7(10.0.0.1 10.0.0.2)

nack eds
----
eds r7.4 a.prod#2@6(10.0.0.1 10.0.0.2)

drop b/2
----
nothing

ack eds
----
eds r8.5 b.prod#1@8(10.0.0.1)
