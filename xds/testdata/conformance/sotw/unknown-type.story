# A type that is not served is passed over on an aggregated stream, and the others go on: clients ask for what they know.
# From: gRFC A27; istio#30498

add orders/1
----
nothing

send type.googleapis.com/envoy.service.runtime.v3.Runtime names=(layer)
----
nothing

send cds
----
cds r2.1 v2#1 orders.prod#1
