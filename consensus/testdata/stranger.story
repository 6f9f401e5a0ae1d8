# A member that was away knows nothing of those that were taken in meanwhile, and
# one of them leads now. It is not refused: it says by which entry it came, and
# that is one that the member has not got.
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

stop at=1
----

join at=4 via=2
----

tick times=3
----
1: down
2: follower of term 2, leader 3, commit 7, applied 7 []
3: leader of term 2, leader 3, commit 7, applied 7 []
4: follower of term 2, leader 3, commit 7, applied 7 []

change at=3 promote=4
----
done, applied up to 8

change at=3 transfer=4
----
done, applied up to 8

propose at=4
a
----
index 10: did a

start at=1
----
state at 6, log 2 to 6, committed 6, replayed 0, torn bytes 0, founded false

tick times=3
----
1: follower of term 3, leader 4, commit 10, applied 10 [a]
2: follower of term 3, leader 4, commit 10, applied 10 [a]
3: follower of term 3, leader 4, commit 10, applied 10 [a]
4: leader of term 3, leader 4, commit 10, applied 10 [a]

status
----
1: follower of term 3, leader 4, commit 10, applied 10 [a]
2: follower of term 3, leader 4, commit 10, applied 10 [a]
3: follower of term 3, leader 4, commit 10, applied 10 [a]
4: leader of term 3, leader 4, commit 10, applied 10 [a]

book at=1
----
incarnation of 32 digits, feature level 1, voters [1 2 3 4]
1: uuid-1-1 http-1
2: uuid-2-1 http-2
3: uuid-3-1 http-3
4: uuid-4-1 http-4
