# A segment that is full is sealed, and the next begins with the hard state,
# since the ones before it may be removed.
open segment=150
----
empty after 0, term 0 vote 0 commit 0, torn bytes 0

append hard=1/3/0
1/1 aaaaaaaaaa
2/1 bbbbbbbbbb
----
1 to 2

append hard=1/3/1
3/1 cccccccccc
----
1 to 3

append
4/1 dddddddddd
5/1 eeeeeeeeee
6/1 ffffffffff
----
1 to 6

append hard=1/3/4
7/1 gggggggggg
----
1 to 7

sync
----
ok

show
----
0000000000000001.wal: after entry 0 of term 0
  48, synced 48: term 1 vote 3 commit 0 1/1 2/1
  128, synced 48: term 1 vote 3 commit 1 3/1
  192, synced 192: seal
0000000000000002.wal: after entry 3 of term 1
  48, synced 0: term 1 vote 3 commit 1
  96, synced 96: 4/1 5/1 6/1
  184, synced 184: seal
0000000000000003.wal: after entry 6 of term 1
  48, synced 0: term 1 vote 3 commit 1
  96, synced 96: term 1 vote 3 commit 4 7/1

# Segments go whole, oldest first, and the active one stays.
truncate to=2
----
1 to 7

truncate to=3
----
4 to 7

truncate to=100
----
7 to 7

show
----
0000000000000003.wal: after entry 6 of term 1
  48, synced 0: term 1 vote 3 commit 1
  96, synced 96: term 1 vote 3 commit 4 7/1

entries lo=3 hi=8
----
storage: the entry is before the log's first

entries lo=7 hi=8
----
7/1 gggggggggg

term 2 6 7
----
2: storage: the entry is before the log's first
6: 1
7: 1

# After a crash, too, the vote is there.
crash
----

open applied=4
----
open the log in wal: the log is damaged: it begins with entry 7, though the state ends with 4: what lies between is missing; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory

# The state must hold what the log has not.
crash
----

open applied=6 segment=150
----
7 to 7, term 1 vote 3 commit 4, torn bytes 0

crash
----

open applied=6 segment=150
----
7 to 7, term 1 vote 3 commit 4, torn bytes 0

append
8/1 hhhhhhhhhh
9/1 hhhhhhhhhh
10/1 hhhhhhhhhh
----
7 to 10

append
11/1 iiiiiiiiii
----
7 to 11

sync
----
ok

show
----
0000000000000003.wal: after entry 6 of term 1
  48, synced 0: term 1 vote 3 commit 1
  96, synced 0: term 1 vote 3 commit 4 7/1
  160, synced 160: mark
  200, synced 200: seal
0000000000000004.wal: after entry 7 of term 1
  48, synced 0: term 1 vote 3 commit 4
  96, synced 96: 8/1 9/1 10/1
  184, synced 184: seal
0000000000000005.wal: after entry 10 of term 1
  48, synced 0: term 1 vote 3 commit 4
  96, synced 96: 11/1

# A crash between the seal and the next segment leaves the last one sealed. That
# is not damage, and the log goes on in it. (The loss of the whole newest segment,
# which no crash brings about, looks the same: only a commit index or the state
# can tell.)
remove segment=5
----

crash keeps=all
----

open applied=6 segment=150
----
7 to 10, term 1 vote 3 commit 4, torn bytes 0

show
----
0000000000000003.wal: after entry 6 of term 1
  48, synced 0: term 1 vote 3 commit 1
  96, synced 0: term 1 vote 3 commit 4 7/1
  160, synced 160: mark
  200, synced 200: seal
0000000000000004.wal: after entry 7 of term 1
  48, synced 0: term 1 vote 3 commit 4
  96, synced 0: 8/1 9/1 10/1
  184, synced 184: mark
