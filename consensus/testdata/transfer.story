# The leadership is handed over without an election time-out in between: what was
# proposed meanwhile waits, and goes to the next leader.
cluster size=3 short
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

change at=1 transfer=3
----
done, applied up to 6

change at=1 transfer=9
----
node 9 is not a member: the voters are [1 2 3] and the learners []

# Asked at any member, also at the one that shall lead.
change at=2 transfer=2
----
done, applied up to 6

status
----
1: follower of term 3, leader 2, commit 7, applied 7 []
2: leader of term 3, leader 2, commit 7, applied 7 []
3: follower of term 3, leader 2, commit 7, applied 7 []

change at=1 transfer=1
----
done, applied up to 7

propose at=3
a
----
index 9: did a

# To one that is not heard it is not handed.
stop at=3
----

tick times=20
----
1: leader of term 4, leader 1, commit 9, applied 9 [a]
2: follower of term 4, leader 1, commit 9, applied 9 [a]
3: down

change at=1 transfer=3
----
node 3 is not heard, and was 0 entries behind when it last was: start it, or look at its log

start at=3
----
state at 9, log 2 to 9, committed 9, replayed 0, torn bytes 0, founded false

tick times=3
----
1: leader of term 4, leader 1, commit 9, applied 9 [a]
2: follower of term 4, leader 1, commit 9, applied 9 [a]
3: follower of term 4, leader 1, commit 9, applied 9 [a]

# While it is handed to one that has just been cut off, proposals wait; when it
# does not take over within an election time-out, they go on here.
cut at=3
----

change at=1 transfer=3
----
call-7 waits

propose at=1
b
----
call-8 waits

tick times=9
----
1: leader of term 4, leader 1, commit 10, applied 10 [a b]
2: follower of term 4, leader 1, commit 10, applied 10 [a b]
3: follower of term 4, leader 1, commit 9, applied 9 [a]

wait for=call-7
----
consensus: too busy: node 3 did not take over the leadership within an election time-out

wait for=call-8
----
index 10: did b

heal
----

tick times=20
----
1: leader of term 4, leader 1, commit 10, applied 10 [a b]
2: follower of term 4, leader 1, commit 10, applied 10 [a b]
3: follower of term 4, leader 1, commit 10, applied 10 [a b]

# Before it stops a leader hands over to whoever is nearest.
hand-over at=1
----
done

stop at=1
----

propose at=2
c
----
index 12: did c

status
----
1: down
2: leader of term 5, leader 2, commit 12, applied 12 [a b c]
3: follower of term 5, leader 2, commit 12, applied 12 [a b c]
