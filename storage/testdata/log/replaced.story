# A crash in the middle of removing segments, oldest first, when a later one
# replaced more than what is left: 2 goes on from entry 4, which 1 had, and 3
# goes on from entry 2.
open segment=1
----
empty after 0, term 0 vote 0 commit 0, torn bytes 0

append hard=1/0/2
1/1 a
2/1 b
3/1 c
4/1 d
----
1 to 4

append
5/1 e
----
1 to 5

append hard=2/0/2
3/2 other
----
1 to 3

sync
----
ok

show
----
0000000000000001.wal: after entry 0 of term 0
  48, synced 48: seal
0000000000000002.wal: after entry 0 of term 0
  48, synced 0: term 0 vote 0 commit 0
  96, synced 96: term 1 vote 0 commit 2 1/1 2/1 3/1 4/1
  168, synced 168: seal
0000000000000003.wal: after entry 4 of term 1
  48, synced 0: term 1 vote 0 commit 2
  96, synced 96: 5/1
  144, synced 144: seal
0000000000000004.wal: after entry 2 of term 1
  48, synced 0: term 1 vote 0 commit 2
  96, synced 96: term 2 vote 0 commit 2 3/2

remove segment=1
----

crash keeps=all
----

open applied=2
----
1 to 3, term 2 vote 0 commit 2, torn bytes 0

entries lo=3 hi=4
----
3/2 other

term 1 2 3
----
1: 1
2: 1
3: 2

# 2 is still there and holds nothing.
truncate to=2
----
3 to 3

show
----
0000000000000004.wal: after entry 2 of term 1
  48, synced 0: term 1 vote 0 commit 2
  96, synced 0: term 2 vote 0 commit 2 3/2
  152, synced 152: mark

# Without a state that holds what lay before, the same is damage.
crash keeps=all
----

open applied=1
----
open the log in wal: the log is damaged: it begins with entry 3, though the state ends with 1: what lies between is missing; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory
