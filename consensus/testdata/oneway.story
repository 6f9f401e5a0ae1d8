# A follower that hears the leader and is not heard itself makes no trouble, and
# cannot acknowledge anything either.
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

cut from=1 to=3
----

# The leader has member 2, which is a quorum.
propose at=3
a
----
index 7: did a

# A call at member 1 cannot reach the leader, so nothing was done.
propose at=1
b
----
call-2 waits

wait for=call-2
----
consensus: no leader could be reached within 1s

# The other way round: member 1 is heard and hears nothing. What it forwards is
# done, but the answer does not come back: the outcome is unknown, and without a
# request id there is no second try.
heal
----

tick times=3
----
1: follower of term 2, leader 3, commit 7, applied 7 [a]
2: follower of term 2, leader 3, commit 7, applied 7 [a]
3: leader of term 2, leader 3, commit 7, applied 7 [a]

cut from=3 to=1
----

propose at=1
c
----
call-3 waits

# With a request id it tries again while there is time. Each try reaches the
# leader; the command is applied once.
propose at=1 id=r1
d
----
call-4 waits

wait for=call-3
----
consensus: outcome unknown: forwarded to node 3: context deadline exceeded

wait for=call-4
----
consensus: outcome unknown: an earlier try may have been successful, the last one ended with: consensus: no leader could be reached within 1s

# With PreVote it cannot disturb the others: they have a leader, and the term stays.
tick times=30
----
1: candidate of term 2, leader 0, commit 7, applied 7 [a]
2: follower of term 2, leader 3, commit 9, applied 9 [a c d]
3: leader of term 2, leader 3, commit 9, applied 9 [a c d]

heal
----

tick times=12
----
1: follower of term 2, leader 3, commit 9, applied 9 [a c d]
2: follower of term 2, leader 3, commit 9, applied 9 [a c d]
3: leader of term 2, leader 3, commit 9, applied 9 [a c d]

# Whoever comes again with the same id gets the first reply.
propose at=1 id=r1
d
----
index 9: did d

propose at=2 id=r1
d
----
index 9: did d

status
----
1: follower of term 2, leader 3, commit 11, applied 11 [a c d]
2: follower of term 2, leader 3, commit 11, applied 11 [a c d]
3: leader of term 2, leader 3, commit 11, applied 11 [a c d]
