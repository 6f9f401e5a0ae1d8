# Who asks for all where there is nothing is told so, by an empty response: it would wait otherwise.
# From: go-control-plane#540; envoy#13009

send cds
----
cds r1.1

ack cds
----
nothing

add orders/1
----
cds r2.2 orders.prod#1@2
