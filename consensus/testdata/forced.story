# Who insists gets a cluster that waits: nothing is written until the other voter
# is back.
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

change at=3 remove=1
----
without node 1 the voters are [2 3], of which [2] are not heard: no quorum would be left, and nothing could be written. Start these first, or replace one with `stellmapctl member replace`; --force removes it anyway, and then all writes stop until enough of them are back

change at=3 remove=1 force
----
done, applied up to 7

tick times=3
----
1: follower of term 2, leader 3, commit 6, applied 6 []
2: down
3: follower of term 2, leader 0, commit 7, applied 7 []

# It stays, since the others do not know yet, and may need it. Here it is taken away.
ended at=1
----
it runs

stop at=1
----

propose at=3
a
----
call-3 waits

wait for=call-3
----
consensus: no leader could be reached within 1s

start at=2
----
state at 6, log 2 to 6, committed 6, replayed 0, torn bytes 0, founded false

tick times=40
----
1: down
2: follower of term 3, leader 3, commit 9, applied 9 []
3: leader of term 3, leader 3, commit 9, applied 9 []

members at=2
----
voters [2 3] learners [] removed [1]
