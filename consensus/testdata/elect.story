# Three members elect a leader, whose first entries say who they are. A command
# may be proposed anywhere; its reply comes when it is applied where it was
# proposed.
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

book at=2
----
incarnation of 32 digits, feature level 1, voters [1 2 3]
1: uuid-1-1 http-1
2: uuid-2-1 http-2
3: uuid-3-1 http-3

propose at=3
a
----
index 7: did a

# A follower has the leader do it, and answers when it has it too.
propose at=2
b
----
index 8: did b

# A barrier returns what is committed and applied here, on any member.
barrier at=1
----
index 8

# A question goes to the leader's machine, whoever is asked.
ask at=2
who
----
answer to who

status
----
1: follower of term 2, leader 3, commit 8, applied 8 [a b]
2: follower of term 2, leader 3, commit 8, applied 8 [a b]
3: leader of term 2, leader 3, commit 8, applied 8 [a b]

leadership at=3
----
lead 2
