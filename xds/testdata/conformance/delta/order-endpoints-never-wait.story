# A change of endpoints goes out while clusters, listeners and routes are unanswered.
# From: ours

add orders/1
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.1 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

send cds
----
cds r2.2 orders.prod#1@2
eds r2.3 orders.prod#1@2(10.0.0.1)

add ledger/2
----
nothing

add orders/3
----
nothing
