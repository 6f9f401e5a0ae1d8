# It is served as soon as this member is where the client has been.
# From: ours

add orders/1
----
nothing

send cds initial=(orders.prod@0123456789abcdef.3.i1)
----
nothing

add ledger/2
----
cds r3.1 ledger.prod#1@3 orders.prod#1@2
