# Three members elect a leader, which writes down who they are.
cluster size=3
----

tick times=20 until-leader=1
----
1: follower of term 2, leader 3, commit 2, applied 2, not confirmed []
2: follower of term 2, leader 3, commit 2, applied 2 []
3: leader of term 2, leader 3, commit 2, applied 2 []

tick times=3
----
1: follower of term 2, leader 3, commit 6, applied 6 []
2: follower of term 2, leader 3, commit 6, applied 6 []
3: leader of term 2, leader 3, commit 6, applied 6 []

book at=2
----
incarnation of 32 digits, feature level 1, voters [1 2 3]
1: uuid-1-1 http-1
2: uuid-2-1 http-2
3: uuid-3-1 http-3

propose at=1
a
----
index 7: did a

# A follower has the leader do it, and answers when it has it too.
propose at=2
b
----
index 8: did b

barrier at=3
----
index 8

ask at=2
who
----
answer to who

status
----
1: follower of term 2, leader 3, commit 8, applied 8 [a b]
2: follower of term 2, leader 3, commit 8, applied 8 [a b]
3: leader of term 2, leader 3, commit 8, applied 8 [a b]

leadership at=1
----
----

----
----
