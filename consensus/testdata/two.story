# One of two voters is removed, and is needed a little longer: the other one has
# the entry that removes it, and may not know, or forget, that it is committed.
cluster size=2
----

tick times=30 until-leader=1
----
1: leader of term 2, leader 1, commit 2, applied 2 []
2: follower of term 2, leader 1, commit 2, applied 2 []

tick times=3
----
1: leader of term 2, leader 1, commit 5, applied 5 []
2: follower of term 2, leader 1, commit 5, applied 5 []

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

# The second has the entry, leads when the first is back, and commits it.
tick times=9
----
1: down
2: follower of term 2, leader 1, commit 5, applied 5 []

start at=1
----
state at 1, log 2 to 6, committed 5, replayed 4, torn bytes 0, founded false

tick times=6
----
1: follower of term 3, leader 2, commit 7, applied 7, not confirmed []
2: follower of term 3, leader 0, commit 7, applied 7 []

members at=1
----
voters [1] learners [] removed [2]

# The power fails before that is on the first one's disk.
crash at=1
----

start at=1
----
state at 1, log 2 to 7, committed 5, replayed 4, torn bytes 0, founded false

members at=1
----
voters [1 2] learners [] removed []

# It needs the vote of the one that was removed, which has not ended.
ended at=2
----
it runs

tick times=60
----
1: leader of term 4, leader 1, commit 9, applied 9 []
2: ended

ended at=2
----
consensus: removed from the cluster: node 2 was removed from cluster 100 for ever, and what is in its data directory is of no use any more. To take this machine in again, begin with an empty directory, a node id that was never used and `[cluster] join`

members at=1
----
voters [1] learners [] removed [2]
1: match 9, 0 behind, learner false, active true, replicate

propose at=1
a
----
index 10: did a
