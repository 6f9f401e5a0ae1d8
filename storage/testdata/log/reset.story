# A snapshot of entry 9 comes from another member: the log is replaced by one that
# begins after it. What was before is gone, whatever it was.
open segment=200
----
empty after 0, term 0 vote 0 commit 0, torn bytes 0

append hard=1/1/2
1/1 a
2/1 b
3/1 c
----
1 to 3

append
4/1 dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd
5/1 e
----
1 to 5

append
6/1 f
----
1 to 6

sync
----
ok

reset index=9 term=3 hard=3/2/1
----
empty after 9

entries lo=9 hi=10
----
storage: the entry is before the log's first

term 8 9 10
----
8: storage: the entry is before the log's first
9: 3
10: storage: the entry is after the log's last

show
----
0000000000000003.wal: anew after entry 9 of term 3
  48, synced 0: term 3 vote 2 commit 9
  96, synced 96: mark

# It is durable at once, and goes on like any other.
crash
----

open applied=9
----
empty after 9, term 3 vote 2 commit 9, torn bytes 0

append
10/3 j
----
10 to 10

sync
----
ok

show
----
0000000000000003.wal: anew after entry 9 of term 3
  48, synced 0: term 3 vote 2 commit 9
  96, synced 96: mark
  136, synced 136: 10/3

# A state that does not reach it is not the log's.
crash
----

open applied=2
----
open the log in wal: the log is damaged: it begins with entry 10, though the state ends with 2: what lies between is missing; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory

# A crash after the new segment was named and before the old ones were removed:
# they are no part of the log, so that nothing of them is looked at.
remove
----

open
----
empty after 0, term 0 vote 0 commit 0, torn bytes 0

append hard=1/1/2
1/1 a
2/1 b
3/1 c
----
1 to 3

sync
----
ok

reset index=2 term=2 hard=2/0/0 unremoved
----
write log: begin anew after entry 2: remove segment 0000000000000001.wal: no removing

crash keeps=all
----

show
----
0000000000000001.wal: after entry 0 of term 0
  48, synced 48: term 1 vote 1 commit 2 1/1 2/1 3/1
0000000000000002.wal: anew after entry 2 of term 2
  48, synced 0: term 2 vote 0 commit 2
  96, synced 96: mark

open applied=2
----
empty after 2, term 2 vote 0 commit 2, torn bytes 0

show
----
0000000000000002.wal: anew after entry 2 of term 2
  48, synced 0: term 2 vote 0 commit 2
  96, synced 96: mark

append
3/2 x
----
3 to 3

close
----
ok

# A damaged head of the segment that begins anew is told of, and nothing is removed.
flip segment=2 at=17
----

open applied=2
----
open the log in wal: segment 0000000000000002.wal of the log, at offset 0, is damaged: the header's checksum is wrong; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory
