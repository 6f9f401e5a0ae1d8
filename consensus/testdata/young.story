# One of two voters is removed before anybody has said where it is reached: the
# address book is empty. It commits that itself, is started again, and learns all
# the same when it may end.
cluster size=2
----

tick times=30 until-leader=1
----
1: leader of term 2, leader 1, commit 2, applied 2 []
2: follower of term 2, leader 1, commit 2, applied 2 []

# What the second says does not arrive, so the first commits nothing.
cut from=2 to=1
----

change at=1 remove=2
----
call-1 waits

crash at=1
----

heal
----

tick times=9
----
1: down
2: follower of term 2, leader 1, commit 2, applied 2 []

start at=1
----
state at 1, log 2 to 3, committed 2, replayed 1, torn bytes 0, founded false

tick times=6
----
1: follower of term 3, leader 2, commit 4, applied 4, not confirmed []
2: follower of term 3, leader 0, commit 4, applied 4 []

stop at=2
----

start at=2
----
state at 4, log 2 to 4, committed 4, replayed 0, torn bytes 0, founded false

members at=2
----
voters [1] learners [] removed [2]

tick times=60
----
1: leader of term 4, leader 1, commit 8, applied 8 []
2: ended

ended at=2
----
consensus: removed from the cluster: node 2 was removed from cluster 100 for ever, and what is in its data directory is of no use any more. To take this machine in again, begin with an empty directory, a node id that was never used and `[cluster] join`
