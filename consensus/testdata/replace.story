# A member is dead, and another takes its place: one command, in whatever order
# the rest happens.
cluster size=3
----

tick times=20 until-leader=1
----
1: follower of term 2, leader 3, commit 2, applied 2 []
2: follower of term 2, leader 3, commit 2, applied 2 []
3: leader of term 2, leader 3, commit 2, applied 2 []

tick times=3
----
1: follower of term 2, leader 3, commit 6, applied 6 []
2: follower of term 2, leader 3, commit 6, applied 6 []
3: leader of term 2, leader 3, commit 6, applied 6 []

propose at=3
a
----
index 7: did a

crash at=2
----

wipe at=2
----

# It is written down at once, and waits for the new one.
change at=1 replace=2 by=4
----
done, applied up to 8

tick times=20
----
1: follower of term 2, leader 3, commit 8, applied 8 [a]
2: down
3: leader of term 2, leader 3, commit 8, applied 8 [a]

members at=3
----
voters [1 2 3] learners [] removed [], 4 takes the place of 2
1: match 8, 0 behind, learner false, active true, replicate
2: match 7, 1 behind, learner false, active false, replicate
3: match 8, 0 behind, learner false, active true, replicate

change at=1 replace=1 by=5
----
node 4 is already taking the place of node 2: wait until it has, or give that up with `stellmapctl member replace --abandon`

join at=4 via=1
----

# It is sent a snapshot, in which it is a member itself.
tick
----
1: follower of term 2, leader 3, commit 9, applied 9 [a]
2: down
3: leader of term 2, leader 3, commit 9, applied 9 [a]
4: follower of term 2, leader 3, commit 0, applied 0, not confirmed []

# As soon as it has caught up there are two configurations, which both have to agree.
tick
----
1: follower of term 2, leader 3, commit 9, applied 9 [a]
2: down
3: leader of term 2, leader 3, commit 9, applied 9 [a]
4: follower of term 2, leader 3, commit 9, applied 9 [a]

members at=3
----
voters [1 2 3] learners [4] removed [], 4 takes the place of 2
1: match 9, 0 behind, learner false, active true, replicate
2: match 7, 2 behind, learner false, active false, replicate
3: match 9, 0 behind, learner false, active true, replicate
4: match 0, 9 behind, learner true, active true, probe

tick
----
1: follower of term 2, leader 3, commit 10, applied 10 [a]
2: down
3: leader of term 2, leader 3, commit 10, applied 10 [a]
4: follower of term 2, leader 3, commit 10, applied 10 [a]

members at=3
----
voters [1 3 4] outgoing [1 2 3] learners [] removed [], 4 takes the place of 2
1: match 9, 0 behind, learner false, active true, replicate
2: match 7, 2 behind, learner false, active false, replicate
3: match 9, 0 behind, learner false, active true, replicate
4: match 9, 0 behind, learner true, active true, replicate

# Whoever leads leaves the old one.
tick
----
1: follower of term 2, leader 3, commit 12, applied 12 [a]
2: down
3: leader of term 2, leader 3, commit 12, applied 12 [a]
4: follower of term 2, leader 3, commit 12, applied 12 [a]

members at=3
----
voters [1 3 4] learners [] removed [2]
1: match 10, 0 behind, learner false, active true, replicate
2: match 7, 3 behind, learner false, active false, replicate
3: match 10, 0 behind, learner false, active true, replicate
4: match 10, 0 behind, learner false, active true, replicate

members at=4
----
voters [1 3 4] learners [] removed [2]

# The one that was replaced comes back, without its data, and is not let in.
start at=2
----
state at 1, log 2 to 1, committed 1, replayed 0, torn bytes 0, founded true

tick times=20
----
1: follower of term 2, leader 3, commit 12, applied 12 [a]
2: ended
3: leader of term 2, leader 3, commit 12, applied 12 [a]
4: follower of term 2, leader 3, commit 12, applied 12 [a]

ended at=2
----
consensus: removed from the cluster: node 2 was removed from cluster 100 for ever, and what is in its data directory is of no use any more. To take this machine in again, begin with an empty directory, a node id that was never used and `[cluster] join`

stop at=2
----

change at=3 replace=2 by=4
----
done, applied up to 12

propose at=4
b
----
index 13: did b

status
----
1: follower of term 2, leader 3, commit 13, applied 13 [a b]
2: down
3: leader of term 2, leader 3, commit 13, applied 13 [a b]
4: follower of term 2, leader 3, commit 13, applied 13 [a b]
