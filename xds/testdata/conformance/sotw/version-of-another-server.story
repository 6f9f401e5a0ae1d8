# A version that this server cannot read is that of another kind of server, and no acknowledgement.
# From: seen in go-control-plane

add orders/1
----
nothing

send cds version=7
----
cds r2.1 v2#1 orders.prod#1

status
----
web-1 cds sent=2 acked=0 in-sync=false silent=false
