# A client that refuses its very first response is not sent it in a loop, and has accepted nothing.
# From: go-control-plane#46

add orders/1
----
nothing

send cds
----
cds r2.1 orders.prod#1@2

nack cds
----
nothing

wait 1h
----
nothing

status
----
web-1 cds sent=2 acked=0 in-sync=true silent=false rejected=orders.prod
