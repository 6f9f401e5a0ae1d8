# A follower that needs entries which the leader has cut is sent a snapshot, and
# what follows it from the log.
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

fill at=1 from=41 to=60
----
index 66: did 60

compact at=1
----

fill at=1 from=61 to=63
----
index 69: did 63

log
----
1: log from 38, snapshot 66
2: log from 2, snapshot 0

# The transfer breaks off again and again, and goes on where it was: in the end
# each byte has been carried once.
breaks after=32
----

start at=3
----
state at 14, log 2 to 14, committed 14, replayed 0, torn bytes 0, founded false

tick times=4
----
1: leader of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63]
2: follower of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63]
3: follower of term 2, leader 1, commit 14, applied 14, not confirmed [1 2 3 4 5 6 7 8 9 10 11 12]

log
----
1: log from 38, snapshot 66
2: log from 2, snapshot 0
3: log from 2, snapshot 0

breaks after=0
----

tick times=10
----
1: leader of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63]
2: follower of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63]
3: follower of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63]

carried
----
one snapshot, once

log
----
1: log from 38, snapshot 66
2: log from 2, snapshot 0
3: log from 67, snapshot 66

leadership at=3
----
install 66

# What was installed is there after a power cut, though nothing was flushed since.
crash at=3
----

start at=3
----
state at 66, log 67 to 69, committed 69, replayed 3, torn bytes 0, founded false

tick times=5
----
1: leader of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63]
2: follower of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63]
3: follower of term 2, leader 1, commit 69, applied 69 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63]

# A crash between the two steps: the log begins after the snapshot, and the state
# is the old one. The next start does the second step, before anything else.
stop at=3
----

fill at=1 from=64 to=90
----
index 96: did 90

compact at=1
----

fill at=1 from=91 to=120
----
index 126: did 120

compact at=1
----

fill at=1 from=121 to=122
----
index 128: did 122

start at=3
----
state at 69, log 67 to 69, committed 69, replayed 0, torn bytes 0, founded false

arm at=3
----

tick times=10
----
1: leader of term 2, leader 1, commit 128, applied 128 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 104 105 106 107 108 109 110 111 112 113 114 115 116 117 118 119 120 121 122]
2: follower of term 2, leader 1, commit 128, applied 128 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 104 105 106 107 108 109 110 111 112 113 114 115 116 117 118 119 120 121 122]
3: candidate of term 2, leader 0, commit 126, applied 126, not confirmed [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 104 105 106 107 108 109 110 111 112 113 114 115 116 117 118 119 120]

crash-in-install at=3
----

start at=3
----
state at 126, log 127 to 126, committed 126, replayed 0, torn bytes 0, founded false

status
----
1: leader of term 2, leader 1, commit 128, applied 128 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 104 105 106 107 108 109 110 111 112 113 114 115 116 117 118 119 120 121 122]
2: follower of term 2, leader 1, commit 128, applied 128 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 104 105 106 107 108 109 110 111 112 113 114 115 116 117 118 119 120 121 122]
3: follower of term 2, leader 0, commit 126, applied 126, finished an install at its start, not confirmed [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 104 105 106 107 108 109 110 111 112 113 114 115 116 117 118 119 120]

tick times=10
----
1: leader of term 2, leader 1, commit 128, applied 128 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 104 105 106 107 108 109 110 111 112 113 114 115 116 117 118 119 120 121 122]
2: follower of term 2, leader 1, commit 128, applied 128 [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 104 105 106 107 108 109 110 111 112 113 114 115 116 117 118 119 120 121 122]
3: follower of term 2, leader 1, commit 128, applied 128, finished an install at its start [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 104 105 106 107 108 109 110 111 112 113 114 115 116 117 118 119 120 121 122]

# It goes on like any other.
fill at=3 from=123 to=140
----
index 146: did 140

compact at=3
----

log
----
1: log from 93, snapshot 126
2: log from 2, snapshot 0
3: log from 127, snapshot 146
