# An unanswered response holds back its own type only.
# From: seen in go-control-plane

add orders/1
----
nothing

send eds subscribe=(orders.prod)
----
eds r2.1 orders.prod#1@2(10.0.0.1)

send cds
----
cds r2.2 orders.prod#1@2
