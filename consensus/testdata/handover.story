# The leader that has cut its log is killed, and the one that follows has cut its
# own as far. A member that was away needs nothing that is gone: it comes back to
# another leader than the one that it knew, and is sent all from a log.
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

tick times=50
----
1: leader of term 2, leader 1, commit 19, applied 19 [1 2 3 4 5 6 7 8 9 10 11 12]
2: follower of term 2, leader 1, commit 19, applied 19 [1 2 3 4 5 6 7 8 9 10 11 12]
3: follower of term 2, leader 1, commit 19, applied 19 [1 2 3 4 5 6 7 8 9 10 11 12]

stop at=3
----

fill at=1 from=13 to=40
----
index 47: did 40

tick times=50
----
1: leader of term 2, leader 1, commit 47, applied 47 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40]
2: follower of term 2, leader 1, commit 47, applied 47 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40]
3: down

compact at=1
----

compact at=2
----

fill at=1 from=41 to=60
----
index 67: did 60

tick times=50
----
1: leader of term 2, leader 1, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: follower of term 2, leader 1, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: down

compact at=1
----

compact at=2
----

log
----
1: log from 14, held 18, snapshot 67
2: log from 14, held 18, snapshot 67

crash at=1
----

start at=3
----
state at 19, log 2 to 19, committed 19, replayed 0, torn bytes 0, founded false

tick times=40
----
1: down
2: leader of term 3, leader 2, commit 68, applied 68 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: follower of term 3, leader 2, commit 68, applied 68 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]

log
----
2: log from 14, held 18, snapshot 67
3: log from 2, held 18, snapshot 0

fill at=2 from=61 to=61
----
index 69: did 61

start at=1
----
state at 67, log 14 to 67, committed 67, replayed 0, torn bytes 0, founded false

tick times=60
----
1: follower of term 3, leader 2, commit 70, applied 70 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61]
2: leader of term 3, leader 2, commit 70, applied 70 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61]
3: follower of term 3, leader 2, commit 70, applied 70 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61]

log
----
1: log from 14, held 69, snapshot 67
2: log from 14, held 69, snapshot 67
3: log from 2, held 69, snapshot 0
