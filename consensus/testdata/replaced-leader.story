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

# It gives the leadership away, and the next leader is killed before it has done
# anything.
tick times=2
----
1: leader of term 5, leader 1, commit 12, applied 12 [a]
2: follower of term 5, leader 1, commit 12, applied 12 [a]
3: follower of term 5, leader 1, commit 12, applied 12 [a]
4: follower of term 5, leader 1, commit 12, applied 12 [a]

leadership at=3
----
lead 4, follow

status
----
1: leader of term 5, leader 1, commit 12, applied 12 [a]
2: follower of term 5, leader 1, commit 12, applied 12 [a]
3: follower of term 5, leader 1, commit 12, applied 12 [a]
4: follower of term 5, leader 1, commit 12, applied 12 [a]

crash at=2
----

tick times=40
----
1: leader of term 5, leader 1, commit 14, applied 14 [a]
2: down
3: ended
4: follower of term 5, leader 1, commit 14, applied 14 [a]

start at=2
----
state at 1, log 2 to 12, committed 11, replayed 10, torn bytes 0, founded false

members at=1
----
voters [1 2 4] learners [] removed [3]
1: match 14, 0 behind, learner false, active true, replicate
2: match 12, 2 behind, learner false, active false, replicate
4: match 14, 0 behind, learner false, active true, replicate
