# A snapshot arrives when whoever sent it does not lead any more. The file is kept,
# Raft passes it over, and the new leader's message finds the file there.
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

compact at=1
----

compact at=2
----

hold
----

start at=3
----
state at 14, log 2 to 14, committed 14, replayed 0, torn bytes 0, founded false

tick times=4
----
1: leader of term 2, leader 1, commit 66, applied 66 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: follower of term 2, leader 1, commit 66, applied 66 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: follower of term 2, leader 1, commit 14, applied 14, not confirmed [1 2 3 4 5 6 7 8 9 10 11 12]

# 1 is cut off from the others; 2 and 3 elect 2, which has a snapshot of its own.
cut at=1
----

tick times=40
----
1: candidate of term 2, leader 0, commit 66, applied 66 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: leader of term 3, leader 2, commit 66, applied 66 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: follower of term 3, leader 2, commit 14, applied 14, not confirmed [1 2 3 4 5 6 7 8 9 10 11 12]

heal
----

# Now both arrive: that of the old leader, which says so in a message of an older
# term, and that of the new one.
release
----
1: follower of term 3, leader 2, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: leader of term 3, leader 2, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: follower of term 3, leader 2, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]

tick times=10
----
1: follower of term 3, leader 2, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: leader of term 3, leader 2, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: follower of term 3, leader 2, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]

leadership at=3
----
install 66

log
----
1: log from 38, snapshot 66
2: log from 43, snapshot 66
3: log from 67, snapshot 66
