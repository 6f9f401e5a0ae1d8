# Several new clusters at once are left as they are: all but one of them work, and carry traffic.
# From: measured with Envoy 1.40

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 ledger.prod#1@3 orders.prod#1@2

send eds subscribe=(orders.prod,ledger.prod)
----
eds r3.2 ledger.prod#1@3(10.0.0.2) orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

wait 1h
----
nothing

status
----
web-1 cds sent=3 acked=0 in-sync=false silent=true
web-1 eds sent=3 acked=3 in-sync=true silent=false
