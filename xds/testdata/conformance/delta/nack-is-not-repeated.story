# What the client has refused is not sent to it again, however often something else changes.
# From: go-control-plane#46, #962, PR#794; contour#1176

add orders/1
----
nothing

send cds
----
cds r2.1 orders.prod#1@2

ack cds
----
nothing

add orders/1 check
----
cds r3.2 orders.prod#2@3

nack cds
----
nothing

wait 1h
----
nothing

add ledger/2
----
cds r4.3 ledger.prod#1@4

ack cds
----
nothing

status
----
web-1 cds sent=4 acked=4 in-sync=true silent=false rejected=orders.prod
