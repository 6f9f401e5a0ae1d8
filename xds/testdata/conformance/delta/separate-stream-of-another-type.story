# A request of another type on such a stream is an error that names the field.
# From: xDS protocol

open cds-1 only=cds
----
nothing

send eds subscribe=(orders.prod)
----
ended InvalidArgument: type_url: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment" on a stream of type.googleapis.com/envoy.config.cluster.v3.Cluster
