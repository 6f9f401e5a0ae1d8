# A node joins a cluster whose logs were cut long ago. All that it needs comes in a
# snapshot; a power cut before it has been installed costs nothing but time.
cluster size=3 short
----

tick times=20 until-leader=1
----
1: follower of term 2, leader 3, commit 2, applied 2 []
2: follower of term 2, leader 3, commit 2, applied 2 []
3: leader of term 2, leader 3, commit 2, applied 2 []

fill at=3 from=1 to=40
----
index 42: did 40

compact at=3
----

fill at=3 from=41 to=60
----
index 66: did 60

compact at=3
----

log
----
1: log from 2, snapshot 0
2: log from 2, snapshot 0
3: log from 38, snapshot 66

join at=4 via=1
----

# It has said that it is joining, and nothing else.
crash at=4
----

join at=4 via=2
----

tick times=4
----
1: follower of term 2, leader 3, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: follower of term 2, leader 3, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: leader of term 2, leader 3, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
4: follower of term 2, leader 3, commit 67, applied 67 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]

log
----
1: log from 2, snapshot 0
2: log from 2, snapshot 0
3: log from 63, snapshot 67
4: log from 68, snapshot 67

change at=4 promote=4
----
done, applied up to 68

crash at=4
----

start at=4
----
state at 67, log 68 to 68, committed 67, replayed 0, torn bytes 0, founded false

tick times=4
----
1: follower of term 2, leader 3, commit 68, applied 68 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
2: follower of term 2, leader 3, commit 68, applied 68 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
3: leader of term 2, leader 3, commit 68, applied 68 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]
4: follower of term 2, leader 3, commit 68, applied 68 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60]

members at=4
----
voters [1 2 3 4] learners [] removed []
