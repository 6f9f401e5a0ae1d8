# Versions that this server cannot read are those of another kind of server: all is sent.
# From: seen in go-control-plane

add orders/1
----
nothing

send cds initial=(orders.prod@7)
----
cds r2.1 orders.prod#1@2
