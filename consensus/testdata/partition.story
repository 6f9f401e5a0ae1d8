# A leader that is cut off acknowledges nothing: what it takes in stays
# uncommitted, its reads find no quorum, and it steps down by itself.
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
before
----
index 7: did before

cut at=3
----

propose at=3
lost
----
call-2 waits

barrier at=3
----
call-3 waits

# The others elect another leader, and go on. Member 3 has noticed that it has
# no quorum.
tick times=24
----
1: follower of term 3, leader 2, commit 8, applied 8 [before]
2: leader of term 3, leader 2, commit 8, applied 8 [before]
3: candidate of term 2, leader 0, commit 7, applied 7 [before]

propose at=1
after
----
index 9: did after

# What the old leader took in ends without a verdict: it might have got through.
wait for=call-2
----
consensus: outcome unknown: entry 8 of term 2 is not committed after 3s

wait for=call-3
----
consensus: no leader: no quorum confirmed one within two election time-outs

# With no leader in sight a member says so after a second.
propose at=3
nobody
----
call-5 waits

wait for=call-5
----
consensus: no leader could be reached within 1s

# Healed, it follows; the entry that nobody had is replaced, and is nowhere.
heal
----

tick times=12
----
1: follower of term 3, leader 2, commit 9, applied 9 [before after]
2: leader of term 3, leader 2, commit 9, applied 9 [before after]
3: follower of term 3, leader 2, commit 9, applied 9 [before after]

barrier at=3
----
index 9

leadership at=3
----
lead 2, follow
