# A member that was away comes back by a snapshot that is newer than the last
# check: what its state was after that nobody can say any more. Nothing else is
# written, and all the same it does not stay unknown.
cluster size=3 short check-ticks=20
----

tick at=1 times=16 until-leader=1
----
1: leader of term 2, leader 1, commit 2, applied 2 []
2: follower of term 2, leader 1, commit 2, applied 2 []
3: follower of term 2, leader 1, commit 2, applied 2 []

stop at=3
----

fill at=1 from=1 to=40
----
index 42: did 40

compact at=1
----

fill at=1 from=41 to=60
----
index 66: did 60

tick times=40
----
1: leader of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: follower of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: down

checks
----
1: after 67 equal [1 2], different [], missing [3], split false
2: after 67 equal [1 2], different [], missing [3], split false

compact at=1
----

log
----
1: log from 38, snapshot 69
2: log from 2, snapshot 0

start at=3
----
state at 2, log 2 to 2, committed 2, replayed 0, torn bytes 0, founded false

tick times=3
----
1: leader of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: follower of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: follower of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]

checks
----
1: after 67 equal [1 2], different [], missing [3], split false
2: after 67 equal [1 2], different [], missing [3], split false
3: after 67 equal [1 2], different [], missing [3], split false

tick times=40
----
1: leader of term 2, leader 1, commit 73, applied 73 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: follower of term 2, leader 1, commit 73, applied 73 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: follower of term 2, leader 1, commit 73, applied 73 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]

checks
----
1: after 70 equal [1 2 3], different [], missing [], split false
2: after 70 equal [1 2 3], different [], missing [], split false
3: after 70 equal [1 2 3], different [], missing [], split false

leadership at=3
----
install 69

# It is asked for once. Then the log grows no more.
tick times=60
----
1: leader of term 2, leader 1, commit 73, applied 73 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: follower of term 2, leader 1, commit 73, applied 73 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: follower of term 2, leader 1, commit 73, applied 73 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
