# A version says what the client has of what it asked for then: who asks for more is sent all.
# From: ours

add orders/1 ledger/2
----
nothing

send cds names=(orders.prod)
----
cds r3.1 v3#1 orders.prod#1

ack cds
----
nothing

close
----
nothing

open web-1
----
nothing

send cds names=(orders.prod,ledger.prod) version=last
----
cds r3.1 v3#2 ledger.prod#1 orders.prod#1
