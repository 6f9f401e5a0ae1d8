# A slow disk stops nothing but what waits for it.
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

# A follower's syncs hang: it acknowledges nothing, but answers heartbeats and
# hears them, so that it neither falls away nor disturbs the others.
disk at=1 blocks
----

propose at=3
a
----
index 7: did a

tick times=30
----
1: follower of term 2, leader 3, commit 6, applied 6 []
2: follower of term 2, leader 3, commit 7, applied 7 [a]
3: leader of term 2, leader 3, commit 7, applied 7 [a]

disk at=1 works
----

barrier at=1
----
index 7

# The leader's hang: it goes on leading. The others acknowledge the entry, which
# is committed by that; but it is not in the leader's log yet, so the leader
# does not apply it, and the caller waits.
disk at=3 blocks
----

propose at=3
b
----
call-3 waits

tick times=10
----
1: follower of term 2, leader 3, commit 8, applied 8 [a b]
2: follower of term 2, leader 3, commit 8, applied 8 [a b]
3: leader of term 2, leader 3, commit 7, applied 7 [a]

disk at=3 works
----

wait for=call-3
----
index 8: did b

# A sync that fails ends the member. It is not tried again: what the first one
# lost, a second would report as written.
disk at=3 fails
----

propose at=3
c
----
consensus: outcome unknown: this member is stopping

ended at=3
----
sync the log: write log: the disk is broken

tick times=30
----
1: follower of term 3, leader 2, commit 10, applied 10 [a b c]
2: leader of term 3, leader 2, commit 10, applied 10 [a b c]
3: ended

# Started again it has what was written, which is now synced, and learns the rest.
stop at=3
----

disk at=3 works
----

start at=3
----
state at 8, log 2 to 9, committed 8, replayed 0, torn bytes 0, founded false

barrier at=3
----
call-5 waits

tick times=2
----
1: follower of term 3, leader 2, commit 10, applied 10 [a b c]
2: leader of term 3, leader 2, commit 10, applied 10 [a b c]
3: follower of term 3, leader 2, commit 10, applied 10 [a b c]
