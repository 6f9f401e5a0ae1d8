# What one client refuses another is sent.
# From: ours

add orders/1
----
nothing

open web-1
----
nothing

open web-2
----
nothing

send cds by=web-1
----
web-1 cds r2.1 orders.prod#1@2

nack cds by=web-1
----
nothing

send cds by=web-2
----
web-2 cds r2.1 orders.prod#1@2

ack cds by=web-2
----
nothing

status
----
web-1 cds sent=2 acked=0 in-sync=true silent=false rejected=orders.prod
web-2 cds sent=2 acked=2 in-sync=true silent=false
