# A proposal whose place in the log went to another leader's entry is certainly
# lost, so it may be tried again without a request id: it is applied once.
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

cut at=3
----

propose at=3
mine
----
call-1 waits

# Member 3 does not get older while the others elect a leader.
tick at=1 times=8
----
1: follower of term 2, leader 3, commit 6, applied 6 []
2: follower of term 2, leader 3, commit 6, applied 6 []
3: leader of term 2, leader 3, commit 6, applied 6 []

tick at=2 times=8
----
1: follower of term 2, leader 3, commit 6, applied 6 []
2: follower of term 2, leader 3, commit 6, applied 6 []
3: leader of term 2, leader 3, commit 6, applied 6 []

tick at=1 times=10
----
1: leader of term 3, leader 1, commit 7, applied 7 []
2: follower of term 3, leader 1, commit 7, applied 7 []
3: leader of term 2, leader 3, commit 6, applied 6 []

propose at=1
theirs
----
index 8: did theirs

heal
----

tick at=1 times=3
----
1: leader of term 3, leader 1, commit 8, applied 8 [theirs]
2: follower of term 3, leader 1, commit 8, applied 8 [theirs]
3: follower of term 3, leader 1, commit 8, applied 8 [theirs]

tick at=2 times=3
----
1: leader of term 3, leader 1, commit 8, applied 8 [theirs]
2: follower of term 3, leader 1, commit 8, applied 8 [theirs]
3: follower of term 3, leader 1, commit 8, applied 8 [theirs]

wait for=call-1
----
index 9: did mine

status
----
1: leader of term 3, leader 1, commit 9, applied 9 [theirs mine]
2: follower of term 3, leader 1, commit 9, applied 9 [theirs mine]
3: follower of term 3, leader 1, commit 9, applied 9 [theirs mine]
