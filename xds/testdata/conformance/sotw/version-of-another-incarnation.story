# A version of another incarnation of the cluster says nothing.
# From: ours

add orders/1
----
nothing

send cds version=i0.9999.0123456789abcdef
----
cds r2.1 v2#1 orders.prod#1
