# Of several that were refused those that the client does not want any more are not tried again, and the one that is left is not to blame for that.
# From: ours

add a/1 b/1
----
nothing

send eds subscribe=(a.prod,b.prod)
----
eds r3.1 a.prod#1@2(10.0.0.1) b.prod#1@3(10.0.0.1)

send eds unsubscribe=(a.prod)
----
nothing

nack eds
----
eds r3.2 b.prod#1@3(10.0.0.1)

ack eds
----
nothing
