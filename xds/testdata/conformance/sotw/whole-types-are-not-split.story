# Clusters and listeners are sent in one response, however large: what was missing would be gone.
# From: xDS protocol, "State of the World"

member response-bytes=1500
----
nothing

add a/1 b/1 c/1 d/1 e/1
----
nothing

send cds
----
cds r6.1 v6#1 a.prod#1 b.prod#1 c.prod#1 d.prod#1 e.prod#1
