# A type that is not served is passed over on an aggregated stream, and the others go on: clients ask for what they know.
# From: gRFC A27; istio#30498

add orders/1
----
nothing

send type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret subscribe=(cert)
----
nothing

send cds
----
cds r2.1 orders.prod#1@2
