# Who unsubscribes from "*" is told of nothing but what it has asked for by name.
# From: xDS protocol, "Wildcard subscriptions"; go-control-plane#1002

add orders/1 ledger/2
----
nothing

send cds subscribe=(*,orders.prod)
----
cds r3.1 ledger.prod#1@3 orders.prod#1@2

ack cds
----
nothing

send cds unsubscribe=(*)
----
nothing

add basket/3
----
nothing

add orders/1 ledger/2 check
----
cds r5.2 orders.prod#2@5
