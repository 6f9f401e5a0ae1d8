# A learner that lacks too much is not counted on: until it had caught up, a
# quorum that includes it could not write. The answer says how far behind it is.
cluster size=3 short
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

change at=1 add-learner=4
----
done, applied up to 7

# It was never heard.
change at=1 promote=4
----
node 4 has not got anything yet: start it with `[cluster] join`, and wait until it has caught up

join at=4 via=2
----

tick times=3
----
1: follower of term 2, leader 3, commit 8, applied 8 []
2: follower of term 2, leader 3, commit 8, applied 8 []
3: leader of term 2, leader 3, commit 8, applied 8 []
4: follower of term 2, leader 3, commit 8, applied 8 []

# Its disk hangs, and the others go on.
disk at=4 blocks
----

fill at=1 from=1 to=20
----
index 28: did 20

tick times=2
----
1: follower of term 2, leader 3, commit 28, applied 28 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20]
2: follower of term 2, leader 3, commit 28, applied 28 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20]
3: leader of term 2, leader 3, commit 28, applied 28 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20]
4: follower of term 2, leader 3, commit 8, applied 8 []

change at=2 promote=4
----
node 4 is 20 entries behind, 4 are allowed: try again when it has caught up

disk at=4 works
----

tick times=10
----
1: follower of term 2, leader 3, commit 28, applied 28 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20]
2: follower of term 2, leader 3, commit 28, applied 28 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20]
3: leader of term 2, leader 3, commit 28, applied 28 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20]
4: follower of term 2, leader 3, commit 28, applied 28 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20]

change at=2 promote=4
----
done, applied up to 29

tick
----
1: follower of term 2, leader 3, commit 29, applied 29 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20]
2: follower of term 2, leader 3, commit 29, applied 29 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20]
3: leader of term 2, leader 3, commit 29, applied 29 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20]
4: follower of term 2, leader 3, commit 29, applied 29 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20]

members at=3
----
voters [1 2 3 4] learners [] removed []
1: match 29, 0 behind, learner false, active true, replicate
2: match 29, 0 behind, learner false, active true, replicate
3: match 29, 0 behind, learner false, active true, replicate
4: match 29, 0 behind, learner false, active true, replicate

# Nobody who is none can be promoted.
change at=1 promote=9
----
node 9 is not a member: the voters are [1 2 3 4] and the learners []
