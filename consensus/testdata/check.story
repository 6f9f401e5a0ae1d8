# Members compare their states now and then: each hashes its own as it is after
# the same entry, and the hashes go through the log.
cluster size=3 check-ticks=20
----

tick times=20 until-leader=1
----
1: follower of term 2, leader 3, commit 2, applied 2 []
2: follower of term 2, leader 3, commit 2, applied 2 []
3: leader of term 2, leader 3, commit 2, applied 2 []

tick times=40
----
1: follower of term 2, leader 3, commit 10, applied 10 []
2: follower of term 2, leader 3, commit 10, applied 10 []
3: leader of term 2, leader 3, commit 10, applied 10 []

checks
----
1: after 7 equal [1 2 3], different [], missing [], split false
2: after 7 equal [1 2 3], different [], missing [], split false
3: after 7 equal [1 2 3], different [], missing [], split false

# Nothing has changed since: no check is asked for, and the log does not grow.
tick times=60
----
1: follower of term 2, leader 3, commit 10, applied 10 []
2: follower of term 2, leader 3, commit 10, applied 10 []
3: leader of term 2, leader 3, commit 10, applied 10 []

# A member makes something else of a command. At the next check two of three
# agree, and the third stops: it must not serve, vote or lead with that state.
spoil at=1
----

propose at=2
a
----
index 11: did a

tick times=40
----
1: ended
2: follower of term 2, leader 3, commit 15, applied 15 [a]
3: leader of term 2, leader 3, commit 15, applied 15 [a]

checks
----
1: after 12 equal [], different [1 3], missing [2], split true
2: after 12 equal [2 3], different [1], missing [], split false
3: after 12 equal [2 3], different [1], missing [], split false

ended at=1
----
apply entry 15 of term 2: consensus: the members' states differ: after entry 12 the state of node 1 has the hash ede69e94fd56f63c82d74ee11a11ca42a6f5f9963dbee50f7483c4eeca620834, and a majority has 7cf566b86e8d00c00cc59d7733020667a01deadb749e25164b263fd15deb71a9. What this member holds is wrong: do not start it again; replace it under a new id with `stellmapctl member replace --node-id 1 --new-node-id M`

# Started again it meets the verdict again, before it has served anything.
crash at=1
----

start at=1
----
state at 1, log 2 to 15, committed 12, replayed 11, torn bytes 0, founded false

tick times=5
----
1: ended
2: follower of term 2, leader 3, commit 15, applied 15 [a]
3: leader of term 2, leader 3, commit 15, applied 15 [a]

ended at=1
----
apply entry 15 of term 2: consensus: the members' states differ: after entry 12 the state of node 1 has the hash ede69e94fd56f63c82d74ee11a11ca42a6f5f9963dbee50f7483c4eeca620834, and a majority has 7cf566b86e8d00c00cc59d7733020667a01deadb749e25164b263fd15deb71a9. What this member holds is wrong: do not start it again; replace it under a new id with `stellmapctl member replace --node-id 1 --new-node-id M`

# The others go on.
propose at=2
b
----
index 16: did b

tick times=40
----
1: ended
2: follower of term 2, leader 3, commit 19, applied 19 [a b]
3: leader of term 2, leader 3, commit 19, applied 19 [a b]

checks
----
1: after 12 equal [], different [], missing [1 2 3], split false
2: after 17 equal [2 3], different [], missing [1], split false
3: after 17 equal [2 3], different [], missing [1], split false

# Two members that differ, and no majority: nobody knows who is right, so nothing
# more is written.
spoil at=2
----

propose at=3
c
----
index 20: did c

tick times=40
----
1: ended
2: follower of term 2, leader 3, commit 23, applied 23 [a b c!]
3: leader of term 2, leader 3, commit 23, applied 23 [a b c]

checks
----
1: after 12 equal [], different [], missing [1 2 3], split false
2: after 21 equal [], different [2 3], missing [1], split true
3: after 21 equal [], different [2 3], missing [1], split true

propose at=3
d
----
consensus: the members' states differ after entry 21, and none has a majority: node 2 has 2551de122495, node 3 has e15f1f2a091d; find out which is right, and make a new cluster from its backup
