# A follower that was away comes back when the others have cut what it lacks, and
# to another leader than the one that it knew. It is sent that one's snapshot.
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

stop at=3
----

fill at=1 from=13 to=40
----
index 42: did 40

compact at=1
----

compact at=2
----

fill at=1 from=41 to=60
----
index 66: did 60

tick times=2
----
1: leader of term 2, leader 1, commit 66, applied 66 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: follower of term 2, leader 1, commit 66, applied 66 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: down

compact at=1
----

compact at=2
----

log
----
1: log from 38, snapshot 66
2: log from 43, snapshot 66

crash at=1
----

start at=3
----
state at 14, log 2 to 14, committed 14, replayed 0, torn bytes 0, founded false

# 3 cannot be elected, since its log is shorter.
tick times=40
----
1: down
2: leader of term 3, leader 2, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: follower of term 3, leader 2, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]

log
----
2: log from 43, snapshot 66
3: log from 67, snapshot 66

leadership at=3
----
install 66

# It is as good a voter as any.
start at=1
----
state at 66, log 38 to 66, committed 66, replayed 0, torn bytes 0, founded false

tick times=20
----
1: follower of term 3, leader 2, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: leader of term 3, leader 2, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: follower of term 3, leader 2, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]

stop at=2
----

tick times=30
----
1: leader of term 4, leader 1, commit 68, applied 68 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: down
3: follower of term 4, leader 1, commit 68, applied 68 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]

fill at=1 from=61 to=61
----
index 69: did 61
