# A first request without a node is refused, with the field.
# From: xDS protocol, "The node field"

open web-1 anonymous
----
nothing

send cds
----
ended InvalidArgument: node: is missing in the first message of the stream
