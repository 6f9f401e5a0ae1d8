# An answer that comes after 15 s, when more has been sent, is taken for the response that it is to.
# From: ours

add orders/1
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.1 orders.prod#1@2(10.0.0.1)

wait 15s
----
nothing

send eds subscribe=(ledger.prod)
----
eds r2.2 -ledger.prod !ledger.prod NotFound

ack eds nonce=r2.1
----
nothing

ack eds
----
nothing

status
----
web-1 eds sent=2 acked=2 in-sync=true silent=false
