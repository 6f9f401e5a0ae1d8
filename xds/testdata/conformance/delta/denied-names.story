# What the service of a node may not call is removed, and PERMISSION_DENIED for clients that read resource errors, by whatever name it asks; it is sent as soon as it is allowed.
# From: gRFC A88

open web-1 service=shop upstreams=(orders.prod)
----
nothing

add orders/1 ledger/2
----
nothing

send eds subscribe=(ledger.prod,orders.prod)
----
eds r3.1 ledger.prod#1@3(10.0.0.2) orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

call may=(orders.prod)
----
eds r4.2 -ledger.prod !ledger.prod PermissionDenied

ack eds
----
nothing

send cds subscribe=(ledger.prod)
----
cds r4.3 -ledger.prod !ledger.prod PermissionDenied

ack cds
----
nothing

call may=(*.prod)
----
cds r5.4 ledger.prod#1@3
eds r5.5 ledger.prod#1@3(10.0.0.2)
