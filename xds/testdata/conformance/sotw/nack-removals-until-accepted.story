# … and in each after it, until the client accepts one, however many it refuses.
# From: gRFC A46

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 v3#1 ledger.prod#1 orders.prod#1

ack cds
----
nothing

add basket/3
----
cds r4.2 v4#2 basket.prod#1 ledger.prod#1 orders.prod#1

remove ledger/2
----
nothing

add mail/4
----
nothing

add news/5
----
nothing

ack cds
----
cds r8.3 v8#3 basket.prod#1 mail.prod#1 news.prod#1 orders.prod#1

nack cds
----
cds r8.4 v8#4 basket.prod#1 mail.prod#1 orders.prod#1

nack cds
----
cds r8.5 v8#5 basket.prod#1 news.prod#1 orders.prod#1

nack cds
----
cds r8.6 v8#6 basket.prod#1 orders.prod#1

ack cds
----
nothing
