# A new log is empty, and knows the entry before its first.
open base=1/1
----
empty after 1, term 0 vote 0 commit 0, torn bytes 0

show
----
0000000000000001.wal: after entry 1 of term 1

# Entries and a hard state that come together are one frame. Nothing is on the
# disk before the sync, and each frame says up to where the file was synced.
append hard=1/2/1
2/1 b
3/1 c
----
2 to 3

append
4/1 d
----
2 to 4

sync
----
ok

append hard=2/0/3
----
2 to 4

# A mark is written when nothing else is: it attests the last sync.
sync
----
ok

mark
----
ok

show
----
0000000000000001.wal: after entry 1 of term 1
  48, synced 48: term 1 vote 2 commit 1 2/1 3/1
  104, synced 48: 4/1
  152, synced 152: term 2 vote 0 commit 3
  200, synced 200: mark

# The log ends at both ends with an error of its own; the entry before the
# first has a term, but is not there any more.
term 0 1 2 4 5
----
0: storage: the entry is before the log's first
1: 1
2: 1
4: 1
5: storage: the entry is after the log's last

entries lo=1 hi=3
----
storage: the entry is before the log's first

entries lo=2 hi=6
----
storage: the entry is after the log's last

entries lo=2 hi=5
----
2/1 b
3/1 c
4/1 d

entries lo=5 hi=5
----

# At least one entry, and no more bytes than asked for beyond that.
append
5/2 twelve bytes
6/2 twelve bytes
7/2 .
----
2 to 7

entries lo=5 hi=8 max=0
----
5/2 twelve bytes

entries lo=5 hi=8 max=23
----
5/2 twelve bytes

entries lo=5 hi=8 max=24
----
5/2 twelve bytes
6/2 twelve bytes

# What was written is there after a clean stop. The last segment is written
# anew, in frames of which nothing is known to be synced; so a mark follows, in
# the same file, before that gets its name.
close
----
ok

open base=1/1
----
2 to 7, term 2 vote 0 commit 3, torn bytes 0

show
----
0000000000000001.wal: after entry 1 of term 1
  48, synced 0: term 1 vote 2 commit 1 2/1 3/1
  104, synced 0: 4/1
  152, synced 0: term 2 vote 0 commit 3
  200, synced 0: 5/2 6/2 7/2
  280, synced 280: mark

# What was not synced may be lost.
append
8/2 h
----
2 to 8

sync
----
ok

append hard=3/3/8
9/2 i
----
2 to 9

crash
----

open base=1/1
----
2 to 8, term 2 vote 0 commit 3, torn bytes 0

# Or it may be there.
append hard=3/3/8
9/2 i
----
2 to 9

crash keeps=all
----

open base=1/1
----
2 to 9, term 3 vote 3 commit 8, torn bytes 0

entries lo=8 hi=10
----
8/2 h
9/2 i
