# Endpoints and routes that do not exist are NOT_FOUND in resource_errors, at once; a client that does not read them waits as it would in silence.
# From: gRFC A88

send eds names=(nobody.prod)
----
eds r1.1 v1#1 !nobody.prod NotFound

ack eds
----
nothing

send eds names=(nobody.prod,noone.prod)
----
eds r1.2 v1#1 !noone.prod NotFound

ack eds
----
nothing

send rds names=(nothing)
----
rds r1.3 v1#1 !nothing NotFound

ack rds
----
nothing
