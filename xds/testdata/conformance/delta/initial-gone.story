# What the client has and should not have any more is listed as removed.
# From: istio#41494; kmesh#415

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 ledger.prod#1@3 orders.prod#1@2

close
----
nothing

remove ledger/2
----
nothing

open web-1
----
nothing

send cds initial=(orders.prod,ledger.prod)
----
cds r5.1 -ledger.prod
