# The stream of who is nobody any more, since his token was revoked, ends as UNAUTHENTICATED; others' go on.
# From: ours

add orders/1
----
nothing

grant ann may=(*.prod)
----
nothing

open web-1 as=ann
----
nothing

send cds by=web-1
----
cds r3.1 orders.prod#1@2

open web-2
----
nothing

send cds by=web-2
----
web-2 cds r3.1 orders.prod#1@2

grant ann
----
nothing

wait 2s
----
web-1 ended Unauthenticated: what this stream was opened with is good for nothing any more: the token has expired, or it was revoked

add orders/2
----
nothing
