# Only what is new in a response is to blame: what the client has accepted before and was sent again is not.
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

add ledger/2
----
nothing

send eds subscribe=(orders.prod,ledger.prod)
----
eds r3.2 ledger.prod#1@3(10.0.0.2) orders.prod#1@2(10.0.0.1)

nack eds
----
nothing

status
----
web-1 eds sent=3 acked=2 in-sync=true silent=false rejected=ledger.prod
