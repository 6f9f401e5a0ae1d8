# A new leader's entries replace those that were never committed. Both are in
# the file; the later ones count.
open base=1/1
----
empty after 1, term 0 vote 0 commit 0, torn bytes 0

append hard=1/0/2
2/1 old
3/1 old
4/1 old
5/1 old
----
2 to 5

append hard=2/0/2
4/2 new
----
2 to 4

entries lo=2 hi=5
----
2/1 old
3/1 old
4/2 new

term 3 4 5
----
3: 1
4: 2
5: storage: the entry is after the log's last

close
----
ok

open base=1/1
----
2 to 4, term 2 vote 0 commit 2, torn bytes 0

entries lo=2 hi=5
----
2/1 old
3/1 old
4/2 new

# Entries that lie before the active segment are replaced in a segment of its
# own, which says what it goes on from. Here segments are so small that each
# append begins one.
close
----
ok

open base=1/1 segment=1
----
2 to 4, term 2 vote 0 commit 2, torn bytes 0

append hard=2/0/2
5/2 e
----
2 to 5

append
6/2 f
----
2 to 6

append hard=3/0/3
4/3 newer
----
2 to 4

show
----
0000000000000001.wal: after entry 1 of term 1
  48, synced 0: term 1 vote 0 commit 2 2/1 3/1 4/1 5/1
  128, synced 0: term 2 vote 0 commit 2 4/2
  184, synced 184: mark
  224, synced 224: seal
0000000000000002.wal: after entry 4 of term 2
  48, synced 0: term 2 vote 0 commit 2
  96, synced 96: term 2 vote 0 commit 2 5/2
  152, synced 152: seal
0000000000000003.wal: after entry 5 of term 2
  48, synced 0: term 2 vote 0 commit 2
  96, synced 96: 6/2
  144, synced 144: seal
0000000000000004.wal: after entry 3 of term 1
  48, synced 0: term 2 vote 0 commit 2
  96, synced 96: term 3 vote 0 commit 3 4/3

entries lo=2 hi=5
----
2/1 old
3/1 old
4/3 newer

# The segments that were replaced as a whole, 3 and 4 but not 1, go when what
# they went on from goes.
truncate to=3
----
4 to 4

show
----
0000000000000004.wal: after entry 3 of term 1
  48, synced 0: term 2 vote 0 commit 2
  96, synced 96: term 3 vote 0 commit 3 4/3

term 2 3 4
----
2: storage: the entry is before the log's first
3: 1
4: 3

sync
----
ok

crash
----

open base=1/1 applied=3
----
4 to 4, term 3 vote 0 commit 3, torn bytes 0

# The commit index covers entries that this append brings, but a crash may tear
# them off. So it is written only as far as the log reaches: a log that ends
# before its commit index would be refused.
append hard=3/0/9
----
4 to 4

append hard=3/0/9
5/3 e
----
4 to 5

crash keeps=all
----

open base=1/1 applied=3
----
4 to 5, term 3 vote 0 commit 5, torn bytes 0
