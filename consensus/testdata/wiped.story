# A voter that forgot its votes could vote twice. Member 2 comes back with an
# empty data directory, under its old id; the others know it under another UUID.
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

propose at=1
a
----
index 7: did a

stop at=2
----

wipe at=2
----

start at=2
----
state at 1, log 2 to 1, committed 1, replayed 0, torn bytes 0, founded true

# It cannot take part: as soon as it meets one of the others, it is refused.
tick times=2
----
1: follower of term 2, leader 3, commit 7, applied 7 [a]
2: ended
3: leader of term 2, leader 3, commit 7, applied 7 [a]

ended at=2
----
consensus: refused by the other members: node 3 says: node id 2 belongs to the data directory uuid-2-1, and this one is uuid-2-2: its data directory was emptied or replaced. Never start a voter with an empty directory; replace it under a new id with `stellmapctl member replace --node-id 2 --new-node-id M`

# The others go on.
propose at=1
b
----
index 8: did b

# A directory that lost only its identity file is refused before it starts.
stop at=1
----

lose-identity at=1
----

start at=1
----
the data directory holds a log or a state but no identity.json: it is not known whose votes these are. Put the file back, or begin with an empty directory and a node id that was never used
