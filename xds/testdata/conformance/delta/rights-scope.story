# Who asks for all is told of what he may see, whatever his node declares: clusters, listeners and routes.
# From: ours

add orders/1 ledger/2 pay/3
----
nothing

listen ledger/9001 pay/9002
----
nothing

grant ann may=(orders.prod,pay.prod)
----
nothing

open web-1 as=ann upstreams=(*.prod)
----
nothing

send cds
----
cds r7.1 orders.prod#1@2 pay.prod#1@6

ack cds
----
nothing

send lds
----
lds r7.2 egress#1@0 tcp~pay.prod#1@7

ack lds
----
nothing

send rds subscribe=(egress)
----
rds r7.3 egress#1@7(orders.prod pay.prod)

# What comes is judged as what is there.
add books/4
----
nothing

ack rds
----
nothing
