# What was left out beside something that was refused is left out again, in a response that the client can accept.
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

ack cds
----
cds r7.3 v7#3 basket.prod#1 mail.prod#1 orders.prod#1

nack cds
----
cds r7.4 v7#4 basket.prod#1 orders.prod#1

ack cds
----
nothing
