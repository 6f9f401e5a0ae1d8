# Under "*", who unsubscribes from a name that is not part of all is told that it is gone.
# From: xDS protocol, "Unsubscribing from Resources"

open web-1 upstreams=(orders.prod)
----
nothing

add orders/1 ledger/2
----
nothing

send cds subscribe=(*,ledger.prod)
----
cds r3.1 ledger.prod#1@3 orders.prod#1@2

ack cds
----
nothing

send cds unsubscribe=(ledger.prod)
----
cds r3.2 -ledger.prod

ack cds
----
nothing

add ledger/2 check
----
nothing
