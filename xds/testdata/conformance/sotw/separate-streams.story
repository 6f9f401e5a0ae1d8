# A stream of one type serves that type, with and without its type_url.
# From: xDS protocol, "Aggregated Discovery Service"

add orders/1
----
nothing

open cds-1 only=cds
----
nothing

open eds-1 only=eds
----
nothing

send cds by=cds-1
----
cds-1 cds r2.1 v2#1 orders.prod#1

send none by=eds-1 names=(orders.prod)
----
eds-1 eds r2.1 v2#1 orders.prod#1(10.0.0.1)
