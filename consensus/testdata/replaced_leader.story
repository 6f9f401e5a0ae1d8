# The leader itself is replaced, and whoever carries it on is killed in each stage.
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

change at=3 replace=3 by=4
----
done, applied up to 8

# It is in the log: the next leader knows of it.
crash at=3
----

tick times=40
----
1: follower of term 3, leader 2, commit 9, applied 9 [a]
2: leader of term 3, leader 2, commit 9, applied 9 [a]
3: down

start at=3
----
state at 1, log 2 to 8, committed 7, replayed 6, torn bytes 0, founded false

tick times=3
----
1: follower of term 3, leader 2, commit 9, applied 9 [a]
2: leader of term 3, leader 2, commit 9, applied 9 [a]
3: follower of term 3, leader 2, commit 9, applied 9 [a]

members at=1
----
voters [1 2 3] learners [] removed [], 4 takes the place of 3

# The old one leads again.
change at=1 transfer=3
----
done, applied up to 9

members at=3
----
voters [1 2 3] learners [] removed [], 4 takes the place of 3

join at=4 via=1
----

# It gives the leadership away as soon as the new one has caught up, and the next
# leader is killed before it has done anything.
tick at=3 times=2
----
1: follower of term 4, leader 3, commit 11, applied 11 [a]
2: follower of term 4, leader 3, commit 11, applied 11 [a]
3: leader of term 4, leader 3, commit 11, applied 11 [a]
4: follower of term 4, leader 3, commit 11, applied 11, not confirmed [a]

tick at=3
----
1: leader of term 5, leader 1, commit 12, applied 12 [a]
2: follower of term 5, leader 1, commit 12, applied 12 [a]
3: follower of term 5, leader 1, commit 12, applied 12 [a]
4: follower of term 5, leader 1, commit 12, applied 12 [a]

members at=2
----
voters [1 2 3] learners [4] removed [], 4 takes the place of 3

crash at=1
----

tick at=3 times=8
----
1: down
2: follower of term 5, leader 1, commit 12, applied 12 [a]
3: follower of term 5, leader 1, commit 12, applied 12 [a]
4: follower of term 5, leader 1, commit 12, applied 12 [a]

tick at=2 times=16 until-leads=2
----
1: down
2: leader of term 6, leader 2, commit 13, applied 13 [a]
3: follower of term 6, leader 2, commit 13, applied 13 [a]
4: follower of term 6, leader 2, commit 13, applied 13 [a]

# The one after it enters the joint configuration, and is killed there.
tick at=2
----
1: down
2: leader of term 6, leader 2, commit 14, applied 14 [a]
3: follower of term 6, leader 2, commit 14, applied 14 [a]
4: follower of term 6, leader 2, commit 14, applied 14 [a]

members at=2
----
voters [1 2 4] outgoing [1 2 3] learners [] removed [], 4 takes the place of 3
1: match 0, 13 behind, learner false, active true, probe
2: match 13, 0 behind, learner false, active true, replicate
3: match 13, 0 behind, learner false, active true, replicate
4: match 13, 0 behind, learner true, active true, replicate

members at=3
----
voters [1 2 4] outgoing [1 2 3] learners [] removed [], 4 takes the place of 3

start at=1
----
state at 1, log 2 to 12, committed 11, replayed 10, torn bytes 0, founded false

crash at=2
----

# Both halves have a quorum without it, and the next leader leaves the old one.
tick times=40
----
1: leader of term 8, leader 1, commit 18, applied 18 [a]
2: down
3: ended
4: follower of term 8, leader 1, commit 18, applied 18 [a]

members at=1
----
voters [1 2 4] learners [] removed [3]
1: match 18, 0 behind, learner false, active true, replicate
2: match 0, 18 behind, learner false, active false, probe
4: match 18, 0 behind, learner false, active true, replicate

ended at=3
----
consensus: removed from the cluster: node 3 was removed from cluster 100 for ever, and what is in its data directory is of no use any more. To take this machine in again, begin with an empty directory, a node id that was never used and `[cluster] join`

stop at=3
----

start at=2
----
state at 1, log 2 to 14, committed 13, replayed 12, torn bytes 0, founded false

tick times=30
----
1: leader of term 8, leader 1, commit 18, applied 18 [a]
2: follower of term 8, leader 1, commit 18, applied 18 [a]
3: down
4: follower of term 8, leader 1, commit 18, applied 18 [a]

members at=2
----
voters [1 2 4] learners [] removed [3]

propose at=4
b
----
index 19: did b

book at=4
----
incarnation of 32 digits, feature level 1, voters [1 2 4]
1: uuid-1-1 http-1
2: uuid-2-1 http-2
4: uuid-4-1 http-4
