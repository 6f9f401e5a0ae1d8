# A cluster or listener that does not exist is missing in the response, which says so at once.
# From: gRFC A27; go-control-plane#565

add orders/1
----
nothing

send cds names=(orders.prod,nobody.prod)
----
cds r2.1 v2#1 orders.prod#1 !nobody.prod NotFound

ack cds
----
nothing

send lds names=(nobody)
----
lds r2.2 v2#1 !nobody NotFound

ack lds
----
nothing
