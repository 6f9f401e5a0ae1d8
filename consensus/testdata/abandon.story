# A replacement that does not come to its end is given up, or ends when the one
# that shall come, or the one that shall go, is removed.
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

change at=1 replace=2 by=4
----
done, applied up to 7

change at=1 abandon
----
done, applied up to 8

members at=2
----
voters [1 2 3] learners [] removed []

change at=1 abandon
----
done, applied up to 8

change at=1 replace=2 by=4
----
done, applied up to 9

change at=1 replace=2 by=4
----
done, applied up to 9

change at=1 remove=2
----
done, applied up to 11

members at=3
----
voters [1 3] learners [] removed [2]
1: match 6, 0 behind, learner false, active true, replicate
2: match 6, 0 behind, learner false, active true, replicate
3: match 6, 0 behind, learner false, active true, replicate

change at=1 replace=2 by=4
----
node 2 was removed from the cluster

change at=1 replace=1 by=2
----
node id 2 was removed from the cluster, and ids are never given out twice: begin with an empty data directory and an id that was never used

change at=1 replace=1 by=3
----
node 3 votes already: remove node 1 with `stellmapctl member remove 1`

change at=1 add-learner=5
----
done, applied up to 12

change at=1 replace=5 by=6
----
node 5 is a learner, whose place nobody needs to take: remove it with `stellmapctl member remove 5`

change at=1 replace=1 by=1
----
one node takes another's place: name two ids

change at=1 add-learner=0
----
a node id is above 0

change at=1 add-learner=3
----
done, applied up to 12

tick times=20
----
1: follower of term 2, leader 3, commit 12, applied 12 []
2: ended
3: leader of term 2, leader 3, commit 12, applied 12 []

ended at=2
----
consensus: removed from the cluster: node 2 was removed from cluster 100 for ever, and what is in its data directory is of no use any more. To take this machine in again, begin with an empty directory, a node id that was never used and `[cluster] join`

stop at=2
----
