# A node whose scope has become smaller is told which clusters it loses.
# From: istio#41494

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 ledger.prod#1@3 orders.prod#1@2

close
----
nothing

open web-1 upstreams=(orders.prod)
----
nothing

send cds initial=(orders.prod,ledger.prod)
----
cds r3.1 -ledger.prod
