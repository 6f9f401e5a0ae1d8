# A cluster of one grows to three. Whoever is taken in is a learner first: it is
# sent everything, and its silence stops nobody.
cluster size=1
----

tick times=3
----
1: leader of term 2, leader 1, commit 4, applied 4 []

propose at=1
a
----
index 5: did a

join at=2 via=1
----

members at=1
----
voters [1] learners [2] removed []
1: match 4, 0 behind, learner false, active true, replicate

tick times=3
----
1: leader of term 2, leader 1, commit 6, applied 6 [a]
2: follower of term 2, leader 1, commit 6, applied 6 [a]

members at=1
----
voters [1] learners [2] removed []
1: match 6, 0 behind, learner false, active true, replicate
2: match 6, 0 behind, learner true, active true, replicate

status
----
1: leader of term 2, leader 1, commit 6, applied 6 [a]
2: follower of term 2, leader 1, commit 6, applied 6 [a]

# It knows all that it needs: the members, the incarnation, who leads.
book at=2
----
incarnation of 32 digits, feature level 1, voters [1]
1: uuid-1-1 http-1
2: uuid-2-1 http-2

propose at=2
b
----
index 7: did b

change at=2 promote=2
----
done, applied up to 8

members at=2
----
voters [1 2] learners [] removed []

# Twice is no harm.
change at=1 promote=2
----
done, applied up to 8

# The third asks a member that does not lead.
join at=3 via=2
----

tick times=3
----
1: leader of term 2, leader 1, commit 9, applied 9 [a b]
2: follower of term 2, leader 1, commit 9, applied 9 [a b]
3: follower of term 2, leader 1, commit 9, applied 9 [a b]

change at=3 promote=3
----
done, applied up to 10

tick times=3
----
1: leader of term 2, leader 1, commit 10, applied 10 [a b]
2: follower of term 2, leader 1, commit 10, applied 10 [a b]
3: follower of term 2, leader 1, commit 10, applied 10 [a b]

members at=1
----
voters [1 2 3] learners [] removed []
1: match 10, 0 behind, learner false, active true, replicate
2: match 10, 0 behind, learner false, active true, replicate
3: match 10, 0 behind, learner false, active true, replicate

propose at=3
c
----
index 11: did c

status
----
1: leader of term 2, leader 1, commit 11, applied 11 [a b c]
2: follower of term 2, leader 1, commit 11, applied 11 [a b c]
3: follower of term 2, leader 1, commit 11, applied 11 [a b c]

# The founder is stopped: the two that came later go on without it.
stop at=1
----

tick times=40
----
1: down
2: follower of term 3, leader 3, commit 12, applied 12 [a b c]
3: leader of term 3, leader 3, commit 12, applied 12 [a b c]

propose at=2
d
----
index 13: did d

start at=1
----
state at 11, log 2 to 11, committed 11, replayed 0, torn bytes 0, founded false

tick times=20
----
1: follower of term 3, leader 3, commit 13, applied 13 [a b c d]
2: follower of term 3, leader 3, commit 13, applied 13 [a b c d]
3: leader of term 3, leader 3, commit 13, applied 13 [a b c d]

book at=1
----
incarnation of 32 digits, feature level 1, voters [1 2 3]
1: uuid-1-1 http-1
2: uuid-2-1 http-2
3: uuid-3-1 http-3
