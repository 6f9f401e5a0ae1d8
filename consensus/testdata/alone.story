# The only voter campaigns at once: no tick is needed before it leads. It begins
# with an empty entry of its term, then the incarnation and itself.
cluster size=1
----

status
----
1: leader of term 2, leader 1, commit 2, applied 2 []

propose at=1
a
----
index 3: did a

barrier at=1
----
index 3

tick
----
1: leader of term 2, leader 1, commit 5, applied 5 [a]

book at=1
----
incarnation of 32 digits, feature level 1, voters [1]
1: uuid-1-1 http-1

# After a power cut everything that was answered is still there, although the
# state was never flushed: the log has it.
crash at=1
----

start at=1
----
state at 1, log 2 to 5, committed 3, replayed 2, torn bytes 0, founded false

status
----
1: leader of term 3, leader 1, commit 6, applied 6 [a]

# A clean stop flushes, so there is little to replay.
stop at=1
----

start at=1
----
state at 6, log 2 to 6, committed 6, replayed 0, torn bytes 0, founded false

propose at=1
b
----
index 8: did b

status
----
1: leader of term 4, leader 1, commit 8, applied 8 [a b]
