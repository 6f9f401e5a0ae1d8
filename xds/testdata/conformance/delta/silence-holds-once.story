# Behind a client that has been silent about clusters listeners and routes do not wait a second time, until it answers again.
# From: measured with Envoy 1.40

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 ledger.prod#1@3 orders.prod#1@2

send rds subscribe=(egress)
----
nothing

wait 15s
----
rds r3.2 egress#1@3(ledger.prod orders.prod)

ack rds
----
nothing

add basket/3
----
cds r4.3 basket.prod#1@4
rds r4.4 egress#2@4(basket.prod ledger.prod orders.prod)

ack rds
----
nothing

ack cds
----
nothing

ack cds
----
nothing

add mail/4
----
cds r5.5 mail.prod#1@5

ack cds
----
rds r5.6 egress#3@5(basket.prod ledger.prod mail.prod orders.prod)
