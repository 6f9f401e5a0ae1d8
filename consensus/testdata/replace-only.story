# The only voter gives its place to another. There is nobody else to lead while
# it does, so it leads until both are voters, and then the new one.
cluster size=1
----

tick times=5
----
1: leader of term 2, leader 1, commit 4, applied 4 []

join at=2 via=1
----

tick times=5
----
1: leader of term 2, leader 1, commit 5, applied 5 []
2: follower of term 2, leader 1, commit 5, applied 5 []

change at=1 replace=1 by=2
----
done, applied up to 6

tick times=10
----
1: ended
2: leader of term 3, leader 2, commit 10, applied 10 []

members at=2
----
voters [2] learners [] removed [1]
2: match 10, 0 behind, learner false, active true, replicate

propose at=2
a
----
index 11: did a

ended at=1
----
consensus: removed from the cluster: node 1 was removed from cluster 100 for ever, and what is in its data directory is of no use any more. To take this machine in again, begin with an empty directory, a node id that was never used and `[cluster] join`
