# What was listed as removed beside something that was refused is said again: nobody says what a client makes of the rest of such a response.
# From: gRFC A46

add orders/1 ledger/2
----
nothing

send cds
----
cds r3.1 ledger.prod#1@3 orders.prod#1@2

ack cds
----
nothing

add basket/3
----
cds r4.2 basket.prod#1@4

remove ledger/2
----
nothing

add mail/4
----
nothing

ack cds
----
cds r7.3 mail.prod#1@7 -ledger.prod

nack cds
----
cds r7.4 -ledger.prod

ack cds
----
nothing
