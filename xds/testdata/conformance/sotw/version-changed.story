# What has changed since is sent, and what is gone is left out.
# From: istio#41494

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 v3#1 ledger.prod#1 orders.prod#1

ack cds
----
nothing

close
----
nothing

remove ledger/2
----
nothing

open web-1
----
nothing

send cds version=last
----
cds r5.1 v5#2 orders.prod#1
