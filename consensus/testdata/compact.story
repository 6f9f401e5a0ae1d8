# The log is cut behind a snapshot, once all members have what is cut. Here a
# snapshot is due after 10 entries and 4 entries stay behind what is needed.
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
1: log from 2, held 0, snapshot 0
2: log from 2, held 0, snapshot 0
3: log from 2, held 0, snapshot 0

# The leader looks every 50 ticks how far all logs reach, and tells it in the log.
tick times=50
----
1: leader of term 2, leader 1, commit 19, applied 19 [1 2 3 4 5 6 7 8 9 10 11 12]
2: follower of term 2, leader 1, commit 19, applied 19 [1 2 3 4 5 6 7 8 9 10 11 12]
3: follower of term 2, leader 1, commit 19, applied 19 [1 2 3 4 5 6 7 8 9 10 11 12]

compact at=1
----

compact at=2
----

# Until two snapshots are there, the log is kept back to the only one.
log
----
1: log from 14, held 18, snapshot 19
2: log from 14, held 18, snapshot 19
3: log from 2, held 18, snapshot 0

# A member that is away holds the others' logs back: it cannot be sent a snapshot.
stop at=3
----

fill at=1 from=13 to=40
----
index 47: did 40

tick times=100
----
1: leader of term 2, leader 1, commit 47, applied 47 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40]
2: follower of term 2, leader 1, commit 47, applied 47 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40]
3: down

compact at=1
----

log
----
1: log from 14, held 18, snapshot 47
2: log from 14, held 18, snapshot 19

# It comes back and is sent what it missed, from the log.
start at=3
----
state at 19, log 2 to 19, committed 19, replayed 0, torn bytes 0, founded false

tick times=60
----
1: leader of term 2, leader 1, commit 48, applied 48 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40]
2: follower of term 2, leader 1, commit 48, applied 48 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40]
3: follower of term 2, leader 1, commit 48, applied 48 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40]

log
----
1: log from 14, held 47, snapshot 47
2: log from 14, held 47, snapshot 19
3: log from 2, held 47, snapshot 0

compact at=1
----

compact at=2
----

fill at=1 from=41 to=60
----
index 68: did 60

tick times=60
----
1: leader of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: follower of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: follower of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]

compact at=1
----

log
----
1: log from 44, held 68, snapshot 69
2: log from 14, held 68, snapshot 48
3: log from 2, held 68, snapshot 0

# After a power cut the member has its snapshot, the rest of its log, and all of
# the state.
crash at=1
----

start at=1
----
state at 69, log 44 to 69, committed 69, replayed 0, torn bytes 0, founded false

tick times=30
----
1: follower of term 3, leader 3, commit 71, applied 71 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: follower of term 3, leader 3, commit 71, applied 71 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: leader of term 3, leader 3, commit 71, applied 71 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]

fill at=2 from=61 to=61
----
index 72: did 61

log
----
1: log from 44, held 70, snapshot 69
2: log from 14, held 70, snapshot 48
3: log from 2, held 70, snapshot 0
