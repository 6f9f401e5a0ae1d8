# A disk that is nearly full: what grows is refused while there is still room for
# the rest. Commands that begin with a minus do not grow.
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

# The leader's own disk: it refuses, for whoever asks, and nothing was done.
space at=3 low
----

propose at=3
a
----
consensus: disks are nearly full: that of node 3, which leads

propose at=1
b
----
consensus: disks are nearly full: that of node 3, which leads

# What does not grow goes on, and so do reads.
propose at=1
-c
----
index 7: did -c

barrier at=2
----
index 7

space at=3
----
leader, low itself true, low members [3]

# It recovers by itself.
space at=3 ok
----

propose at=1
d
----
index 8: did d

# One follower of two: the others are a quorum with room.
space at=1 low
----

tick
----
1: follower of term 2, leader 3, commit 8, applied 8 [-c d]
2: follower of term 2, leader 3, commit 8, applied 8 [-c d]
3: leader of term 2, leader 3, commit 8, applied 8 [-c d]

space at=3
----
leader, low itself false, low members [1]

propose at=3
e
----
index 9: did e

propose at=1
f
----
index 10: did f

# Two of three: whatever is committed has to be written by one that is low.
space at=2 low
----

tick
----
1: follower of term 2, leader 3, commit 10, applied 10 [-c d e f]
2: follower of term 2, leader 3, commit 10, applied 10 [-c d e f]
3: leader of term 2, leader 3, commit 10, applied 10 [-c d e f]

propose at=3
g
----
consensus: disks are nearly full: those of nodes [1 2], without which there is no quorum

propose at=2
h
----
consensus: disks are nearly full: those of nodes [1 2], without which there is no quorum

propose at=2
-i
----
index 11: did -i

# One has room again, and a tick later growth goes on.
space at=2 ok
----

tick
----
1: follower of term 2, leader 3, commit 11, applied 11 [-c d e f -i]
2: follower of term 2, leader 3, commit 11, applied 11 [-c d e f -i]
3: leader of term 2, leader 3, commit 11, applied 11 [-c d e f -i]

propose at=3
j
----
index 12: did j

# The one with room falls silent. Once that is sure, what is left is a quorum
# with a disk that is nearly full.
cut at=2
----

propose at=3
k
----
index 13: did k

tick times=17
----
1: follower of term 2, leader 3, commit 13, applied 13 [-c d e f -i j k]
2: candidate of term 2, leader 0, commit 12, applied 12 [-c d e f -i j]
3: leader of term 2, leader 3, commit 13, applied 13 [-c d e f -i j k]

propose at=3
l
----
consensus: disks are nearly full: those of nodes [1], without which there is no quorum

propose at=3
-m
----
index 14: did -m

heal
----

tick times=3
----
1: follower of term 2, leader 3, commit 14, applied 14 [-c d e f -i j k -m]
2: follower of term 2, leader 3, commit 14, applied 14 [-c d e f -i j k -m]
3: leader of term 2, leader 3, commit 14, applied 14 [-c d e f -i j k -m]

propose at=3
n
----
index 15: did n

# A new leader hears of it with the votes.
space at=1 low
----

stop at=3
----

tick times=30
----
1: follower of term 3, leader 2, commit 16, applied 16 [-c d e f -i j k -m n]
2: leader of term 3, leader 2, commit 16, applied 16 [-c d e f -i j k -m n]
3: down

propose at=1
o
----
consensus: disks are nearly full: those of nodes [1], without which there is no quorum

propose at=2
p
----
consensus: disks are nearly full: those of nodes [1], without which there is no quorum

propose at=2
-q
----
index 17: did -q

space at=1
----
follower, low itself true, low members []

space at=2
----
leader, low itself false, low members [1]
