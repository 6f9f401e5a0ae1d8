# An edit of a service's upstreams is told to its own nodes alone, though others have the same scope.
# From: ours

add orders/1 ledger/2
----
nothing

open web-1 service=shop upstreams=(orders.prod)
----
nothing

send cds by=web-1
----
cds r3.1 orders.prod#1@2

ack cds by=web-1
----
nothing

open web-2 service=desk upstreams=(orders.prod)
----
nothing

send cds by=web-2
----
web-2 cds r3.1 orders.prod#1@2

ack cds by=web-2
----
nothing

call wants=(ledger.prod)
----
web-1 cds r4.2 ledger.prod#1@3 -orders.prod
