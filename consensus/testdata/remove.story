# Members go. Whoever was removed is told so and ends, and its id is nobody's any
# more.
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

members at=3
----
voters [1 2 3] learners [] removed []
1: match 6, 0 behind, learner false, active true, replicate
2: match 6, 0 behind, learner false, active true, replicate
3: match 6, 0 behind, learner false, active true, replicate

propose at=1
a
----
index 7: did a

# A follower.
change at=2 remove=1
----
done, applied up to 9

members at=2
----
voters [2 3] learners [] removed [1]

# It has heard nothing of it, asks for votes, and is told.
tick times=20
----
1: ended
2: follower of term 2, leader 3, commit 9, applied 9 [a]
3: leader of term 2, leader 3, commit 9, applied 9 [a]

ended at=1
----
consensus: removed from the cluster: node 1 was removed from cluster 100 for ever, and what is in its data directory is of no use any more. To take this machine in again, begin with an empty directory, a node id that was never used and `[cluster] join`

stop at=1
----

start at=1
----
state at 7, log 2 to 8, committed 7, replayed 0, torn bytes 0, founded false

tick times=20
----
1: ended
2: follower of term 2, leader 3, commit 9, applied 9 [a]
3: leader of term 2, leader 3, commit 9, applied 9 [a]

ended at=1
----
consensus: removed from the cluster: node 1 was removed from cluster 100 for ever, and what is in its data directory is of no use any more. To take this machine in again, begin with an empty directory, a node id that was never used and `[cluster] join`

stop at=1
----

# Twice is no harm.
change at=2 remove=1
----
done, applied up to 9

# Under its id nobody is taken in, with the old directory or a new one.
change at=2 add-learner=1
----
node id 1 was removed from the cluster, and ids are never given out twice: begin with an empty data directory and an id that was never used

wipe at=1
----

join at=1 via=2
----
node id 1 was removed from the cluster, and ids are never given out twice: begin with an empty data directory and an id that was never used

change at=2 promote=1
----
node 1 was removed from the cluster

# The leader: it hands the leadership over first.
join at=4 via=2
----

tick times=3
----
1: down
2: follower of term 2, leader 3, commit 10, applied 10 [a]
3: leader of term 2, leader 3, commit 10, applied 10 [a]
4: follower of term 2, leader 3, commit 10, applied 10 [a]

change at=2 promote=4
----
done, applied up to 11

change at=4 remove=3
----
call-7 waits

tick times=30
----
1: down
2: leader of term 3, leader 2, commit 14, applied 14 [a]
3: ended
4: follower of term 3, leader 2, commit 14, applied 14 [a]

wait for=call-7
----
done, applied up to 14

ended at=3
----
consensus: removed from the cluster: node 3 was removed from cluster 100 for ever, and what is in its data directory is of no use any more. To take this machine in again, begin with an empty directory, a node id that was never used and `[cluster] join`

stop at=3
----

members at=2
----
voters [2 4] learners [] removed [1 3]
2: match 14, 0 behind, learner false, active true, replicate
4: match 14, 0 behind, learner false, active true, replicate

propose at=2
b
----
index 15: did b

# A learner does not ask for votes, and learns of it all the same.
join at=5 via=4
----

tick times=3
----
1: down
2: leader of term 3, leader 2, commit 16, applied 16 [a b]
3: down
4: follower of term 3, leader 2, commit 16, applied 16 [a b]
5: follower of term 3, leader 2, commit 16, applied 16 [a b]

cut at=5
----

change at=2 remove=5
----
done, applied up to 18

heal
----

tick times=60
----
1: down
2: leader of term 3, leader 2, commit 18, applied 18 [a b]
3: down
4: follower of term 3, leader 2, commit 18, applied 18 [a b]
5: ended

ended at=5
----
consensus: removed from the cluster: node 5 was removed from cluster 100 for ever, and what is in its data directory is of no use any more. To take this machine in again, begin with an empty directory, a node id that was never used and `[cluster] join`

stop at=5
----

status
----
1: down
2: leader of term 3, leader 2, commit 18, applied 18 [a b]
3: down
4: follower of term 3, leader 2, commit 18, applied 18 [a b]
5: down
