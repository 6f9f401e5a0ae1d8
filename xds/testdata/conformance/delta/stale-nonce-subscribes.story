# What a request with an older nonce says of the subscriptions holds nevertheless: deltas are not said twice.
# From: xDS protocol, "Incremental xDS"

add orders/1 ledger/2
----
nothing

send eds subscribe=(orders.prod)
----
eds r3.1 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

add orders/3
----
eds r4.2 orders.prod#2@4(10.0.0.1 10.0.0.3)

ack eds nonce=r3.1 subscribe=(ledger.prod)
----
nothing

ack eds nonce=r4.2
----
eds r4.3 ledger.prod#1@3(10.0.0.2)
