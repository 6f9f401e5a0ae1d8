# The log is cut behind a snapshot, whoever is away. Here a snapshot is due after
# 10 entries and 4 entries stay behind what is needed.
cluster size=3 short
----

tick at=1 times=16 until-leader=1
----
1: leader of term 2, leader 1, commit 2, applied 2 []
2: follower of term 2, leader 1, commit 2, applied 2 []
3: follower of term 2, leader 1, commit 2, applied 2 []

fill at=1 from=1 to=12
----
index 14: did 12

log
----
1: log from 2, snapshot 0
2: log from 2, snapshot 0
3: log from 2, snapshot 0

compact at=1
----

compact at=2
----

# Until two snapshots are there, the log is kept back to the only one.
log
----
1: log from 11, snapshot 14
2: log from 14, snapshot 18
3: log from 2, snapshot 0

# A member that is away holds nobody's log back.
stop at=3
----

fill at=1 from=13 to=40
----
index 46: did 40

compact at=1
----

log
----
1: log from 11, snapshot 46
2: log from 14, snapshot 18

fill at=1 from=41 to=60
----
index 66: did 60

compact at=1
----

log
----
1: log from 43, snapshot 66
2: log from 14, snapshot 18

# After a power cut the member has its snapshot, the rest of its log, and all of
# the state.
crash at=1
----

start at=1
----
state at 66, log 43 to 66, committed 66, replayed 0, torn bytes 0, founded false

tick times=30
----
1: leader of term 3, leader 1, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: follower of term 3, leader 1, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: down

fill at=2 from=61 to=61
----
index 68: did 61

log
----
1: log from 43, snapshot 66
2: log from 14, snapshot 18
