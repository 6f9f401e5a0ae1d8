# What would leave no quorum is refused, with who is missing; who knows better
# may insist.
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

stop at=2
----

tick times=20
----
1: follower of term 2, leader 3, commit 6, applied 6 []
2: down
3: leader of term 2, leader 3, commit 6, applied 6 []

change at=1 remove=1
----
without node 1 the voters are [2 3], of which [2] are not heard: no quorum would be left, and nothing could be written. Start these first, or replace one with `stellmapctl member replace`; --force removes it anyway, and then all writes stop until enough of them are back

# The one that is dead may go.
change at=1 remove=2
----
done, applied up to 8

members at=3
----
voters [1 3] learners [] removed [2]
1: match 6, 0 behind, learner false, active true, replicate
2: match 6, 0 behind, learner false, active false, replicate
3: match 6, 0 behind, learner false, active true, replicate

# Of two that live, one may go too.
change at=3 remove=1
----
done, applied up to 10

tick times=20
----
1: ended
2: down
3: leader of term 2, leader 3, commit 10, applied 10 []

ended at=1
----
consensus: removed from the cluster: node 1 was removed from cluster 100 for ever, and what is in its data directory is of no use any more. To take this machine in again, begin with an empty directory, a node id that was never used and `[cluster] join`

stop at=1
----

# And the last one may not, whoever insists.
change at=3 remove=3
----
node 3 is the only voter, and without one there is no cluster: promote another first

change at=3 remove=3 force
----
node 3 is the only voter, and without one there is no cluster: promote another first

propose at=3
a
----
index 11: did a
