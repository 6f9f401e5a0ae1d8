# An edit of somebody's rights is told to his own streams alone, though others have the same scope.
# From: ours

add orders/1 ledger/2
----
nothing

grant ann may=(*.prod)
----
nothing

grant bob may=(*.prod)
----
nothing

open web-1 as=ann
----
nothing

send cds by=web-1
----
cds r5.1 ledger.prod#1@3 orders.prod#1@2

ack cds by=web-1
----
nothing

open web-2 as=bob
----
nothing

send cds by=web-2
----
web-2 cds r5.1 ledger.prod#1@3 orders.prod#1@2

ack cds by=web-2
----
nothing

grant ann may=(ledger.prod)
----
nothing

wait 2s
----
web-1 cds r6.2 -orders.prod
