# … also where the client comes with versions, and asks for its endpoints only after the changed cluster was sent.
# From: measured with Envoy 1.40; envoy#36951, #33607

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 ledger.prod#1@3 orders.prod#1@2

ack cds
----
nothing

send eds subscribe=(orders.prod,ledger.prod)
----
eds r3.2 ledger.prod#1@3(10.0.0.2) orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

close
----
nothing

add orders/1 check
----
nothing

open web-1
----
nothing

send cds initial=(orders.prod,ledger.prod)
----
cds r4.1 orders.prod#2@4

send eds subscribe=(orders.prod,ledger.prod) initial=(orders.prod,ledger.prod)
----
eds r4.2 orders.prod#1@4(10.0.0.1)
