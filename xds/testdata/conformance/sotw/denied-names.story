# What the service of a node may not call is PERMISSION_DENIED in resource_errors, whatever name it asks by; it is sent as soon as it is allowed.
# From: gRFC A88

open web-1 service=shop upstreams=(orders.prod)
----
nothing

add orders/1 ledger/2
----
nothing

send eds names=(ledger.prod,orders.prod)
----
eds r3.1 v3#1 ledger.prod#1(10.0.0.2) orders.prod#1(10.0.0.1)

ack eds
----
nothing

call may=(orders.prod)
----
eds r4.2 v4#2 !ledger.prod PermissionDenied

ack eds
----
nothing

call may=(*.prod)
----
eds r5.3 v5#3 ledger.prod#1(10.0.0.2)
