# What must not be repaired is refused, with the segment and the offset.
open segment=1
----
empty after 0, term 0 vote 0 commit 0, torn bytes 0

append hard=1/1/0
1/1 a
----
1 to 1

append
2/1 b
----
1 to 2

append hard=1/1/2
3/1 c
----
1 to 3

append
4/1 d
----
1 to 4

close
----
ok

show
----
0000000000000001.wal: after entry 0 of term 0
  48, synced 48: seal
0000000000000002.wal: after entry 0 of term 0
  48, synced 0: term 0 vote 0 commit 0
  96, synced 96: term 1 vote 1 commit 0 1/1
  152, synced 152: seal
0000000000000003.wal: after entry 1 of term 1
  48, synced 0: term 1 vote 1 commit 0
  96, synced 96: 2/1
  144, synced 144: seal
0000000000000004.wal: after entry 2 of term 1
  48, synced 0: term 1 vote 1 commit 0
  96, synced 96: term 1 vote 1 commit 2 3/1
  152, synced 152: seal
0000000000000005.wal: after entry 3 of term 1
  48, synced 0: term 1 vote 1 commit 2
  96, synced 96: 4/1
  144, synced 144: mark

# A segment is missing.
rename segment=3 to=30
----

open
----
open the log in wal: segment 0000000000000003.wal of the log, at offset 0, is damaged: it is missing, though 0000000000000004.wal is there; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory

# A segment has another's name.
rename segment=2 to=3
----

rename segment=30 to=2
----

open
----
open the log in wal: segment 0000000000000002.wal of the log, at offset 0, is damaged: the header says segment 3: the file was renamed; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory

rename segment=3 to=30
----

rename segment=2 to=3
----

rename segment=30 to=2
----

open segment=1
----
1 to 4, term 1 vote 1 commit 2, torn bytes 0

# It ends without its seal.
close
----
ok

cut segment=3 at=152
----

open
----
open the log in wal: segment 0000000000000003.wal of the log, at offset 144, is damaged: no valid frame is there, though a later segment is; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory

# All of it is gone, and the state is not that of the beginning.
remove
----

open applied=2
----
open the log in wal: the log is damaged: it is empty, though entry 2 was applied; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory

# A torn tail is cut, if what the state holds is not in it.
open base=1/1
----
empty after 1, term 0 vote 0 commit 0, torn bytes 0

append
2/1 b
3/1 c
----
2 to 3

append
4/1 d
----
2 to 4

close
----
ok

cut segment=1 at=150
----

open base=1/1 applied=4
----
open the log in wal: the log is damaged: it ends at entry 3, though 4 was applied; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory

open base=1/1 applied=3
----
2 to 3, term 0 vote 0 commit 0, torn bytes 46

entries lo=2 hi=4
----
2/1 b
3/1 c

# Damage is not a tear: a later frame knows that it was synced.
append
4/2 d
----
2 to 4

sync
----
ok

append
5/2 e
----
2 to 5

close
----
ok

flip segment=1 at=180
----

open base=1/1
----
open the log in wal: segment 0000000000000001.wal of the log, at offset 144, is damaged: no valid frame is there, though the one at 192 says that it was synced; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory

flip segment=1 at=180
----

open base=1/1
----
2 to 5, term 0 vote 0 commit 0, torn bytes 0

# Raft never replaces what was committed. If it is missing all the same, the log
# is not used.
append hard=2/0/5
----
2 to 5

append
4/3 d
----
2 to 4

close
----
ok

open base=1/1
----
open the log in wal: the log is damaged: it ends at entry 4, though 5 was committed; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory

# A log that begins after what the state holds leaves a gap.
remove
----

open base=7/1
----
empty after 7, term 0 vote 0 commit 0, torn bytes 0

append
8/1 h
----
8 to 8

close
----
ok

open base=6/1 applied=6
----
open the log in wal: the log is damaged: it begins with entry 8, though the state ends with 6: what lies between is missing; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory

open base=1/1 applied=7
----
8 to 8, term 0 vote 0 commit 0, torn bytes 0

# A header that is damaged.
close
----
ok

flip segment=1 at=3
----

open base=7/1
----
open the log in wal: segment 0000000000000001.wal of the log, at offset 0, is damaged: it begins with "SMLNG001", not "SMLOG001"; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory

flip segment=1 at=3
----

flip segment=1 at=20
----

open base=7/1
----
open the log in wal: segment 0000000000000001.wal of the log, at offset 0, is damaged: the header's checksum is wrong; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory

cut segment=1 at=40
----

open base=7/1
----
open the log in wal: segment 0000000000000001.wal of the log, at offset 0, is damaged: 40 bytes are too few for a header; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory
