# What answers no response is taken from a stream at a rate, two seconds' worth at once; the rest waits, and nothing is refused. Answers are taken at any rate.
# From: ours

member requests=1
----
nothing

add orders/1 ledger/2 pay/3
----
nothing

send eds subscribe=(orders.prod)
----
eds r4.1 orders.prod#1@2(10.0.0.1)

ack eds
----
nothing

add orders/4
----
eds r5.2 orders.prod#2@5(10.0.0.1 10.0.0.4)

ack eds
----
nothing

add orders/5
----
eds r6.3 orders.prod#3@6(10.0.0.1 10.0.0.4 10.0.0.5)

ack eds
----
nothing

send eds subscribe=(ledger.prod)
----
eds r6.4 ledger.prod#1@3(10.0.0.2)

ack eds
----
nothing

send eds subscribe=(pay.prod)
----
nothing

# What waits keeps nothing from being told.
add orders/6
----
eds r7.5 orders.prod#4@7(10.0.0.1 10.0.0.4 10.0.0.5 10.0.0.6)

# Its answer stands behind the request that waits, where the client has put it.
ack eds
----
nothing

wait 500ms
----
nothing

wait 500ms
----
eds r7.6 pay.prod#1@4(10.0.0.3)
