# Streams of single types wait for nothing on other streams.
# From: xDS protocol, "Eventual consistency considerations"

add orders/1
----
nothing

open cds-1 only=cds
----
nothing

open rds-1 only=rds
----
nothing

open lds-1 only=lds
----
nothing

send cds by=cds-1
----
cds-1 cds r2.1 v2#1 orders.prod#1

send rds by=rds-1 names=(egress)
----
rds-1 rds r2.1 v2#1 egress#1(orders.prod)

send lds by=lds-1
----
lds-1 lds r2.1 v2#1 egress#1
