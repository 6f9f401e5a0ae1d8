# A client that has seen a later revision than this member is not told older things: after 5 s it is sent to another member.
# From: ours

add orders/1
----
nothing

send cds initial=(orders.prod@0123456789abcdef.9.i1)
----
nothing

wait 4s
----
nothing

wait 1s
----
ended Unavailable: this member is at revision 2, the client has seen 9
