# What the client has and does not ask for is listed as removed.
# From: istio#41494

add orders/1 ledger/2
----
nothing

send eds subscribe=(orders.prod,ledger.prod)
----
eds r3.1 ledger.prod#1@3(10.0.0.2) orders.prod#1@2(10.0.0.1)

close
----
nothing

open web-1
----
nothing

send eds subscribe=(orders.prod) initial=(orders.prod,ledger.prod)
----
eds r3.1 -ledger.prod
