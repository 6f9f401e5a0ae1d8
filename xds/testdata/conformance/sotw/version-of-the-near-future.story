# It is served as soon as this member is where the client has been.
# From: ours

add orders/1
----
nothing

send cds version=i1.3.0123456789abcdef
----
nothing

add ledger/2
----
cds r3.1 v3#1 ledger.prod#1 orders.prod#1
