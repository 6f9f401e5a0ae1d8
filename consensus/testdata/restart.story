# Whatever was answered survives the power cut of all members at once.
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

propose at=1 id=x
a
----
index 7: did a

propose at=2
b
----
index 8: did b

crash at=1
----

crash at=2
----

crash at=3
----

start at=1
----
state at 1, log 2 to 8, committed 7, replayed 6, torn bytes 0, founded false

start at=2
----
state at 1, log 2 to 8, committed 7, replayed 6, torn bytes 0, founded false

start at=3
----
state at 1, log 2 to 8, committed 7, replayed 6, torn bytes 0, founded false

tick times=20 until-leader=1
----
1: follower of term 3, leader 3, commit 9, applied 9 [a b]
2: follower of term 3, leader 3, commit 9, applied 9 [a b]
3: leader of term 3, leader 3, commit 9, applied 9 [a b]

barrier at=1
----
index 9

# Request ids are remembered too.
propose at=2 id=x
a
----
index 7: did a

# The incarnation is the first one for ever, and the address book is not
# written again.
tick times=5
----
1: follower of term 3, leader 3, commit 10, applied 10 [a b]
2: follower of term 3, leader 3, commit 10, applied 10 [a b]
3: leader of term 3, leader 3, commit 10, applied 10 [a b]

book at=1
----
incarnation of 32 digits, feature level 1, voters [1 2 3]
1: uuid-1-1 http-1
2: uuid-2-1 http-2
3: uuid-3-1 http-3
