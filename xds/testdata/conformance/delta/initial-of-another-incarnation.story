# Versions of another incarnation of the cluster, that was restored, say nothing: all is sent.
# From: ours

add orders/1
----
nothing

send cds initial=(orders.prod@0123456789abcdef.9999.i0,gone.prod@0123456789abcdef.9999.i0)
----
cds r2.1 orders.prod#1@2 -gone.prod
