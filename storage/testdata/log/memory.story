# The newest entries are in memory, as many as TailBytes allow (with 48 bytes
# for each entry beside its data); the others are read from the segments.
open segment=300 tail=150
----
empty after 0, term 0 vote 0 commit 0, torn bytes 0

append
1/1 one
2/1 two
3/1 three
4/1 four
----
1 to 4

memory
----
3 to 4, 105 bytes

append
5/1 five
6/1 six
7/1 seven
8/1 eight
9/1 nine
10/1 ten
----
1 to 10

append
11/1 eleven
----
1 to 11

memory
----
10 to 11, 105 bytes

# A read ends where the disk's part ends; the next goes on in memory.
entries lo=1 hi=12
----
1/1 one
2/1 two
3/1 three
4/1 four
5/1 five
6/1 six
7/1 seven
8/1 eight
9/1 nine

entries lo=10 hi=12
----
10/1 ten
11/1 eleven

entries lo=3 hi=6 max=9
----
3/1 three
4/1 four

# Replacing lets go of what was in memory.
append
9/2 IX
----
1 to 9

memory
----
9 to 9, 50 bytes

entries lo=7 hi=10
----
7/1 seven
8/1 eight

entries lo=9 hi=10
----
9/2 IX

# However large, the newest is in memory.
append
10/2 a hundred and fifty bytes or so, ..................................................................................................................
----
1 to 10

memory
----
10 to 10, 195 bytes

# A log that is opened again has read its newest entries.
close
----
ok

open segment=300 tail=150
----
1 to 10, term 0 vote 0 commit 0, torn bytes 0

memory
----
10 to 10, 195 bytes

entries lo=8 hi=11
----
8/1 eight
9/2 IX

# Where the first entry alone is more than was asked for, none follows it, not
# even one without data: from the disk as from memory.
append
11/2 twelve bytes
12/2
13/2
14/2 x
15/2 y
----
1 to 15

memory
----
13 to 15, 146 bytes

entries lo=11 hi=13 max=3
----
11/2 twelve bytes

append
16/2 twelve bytes
17/2
----
1 to 17

entries lo=16 hi=18 max=3
----
16/2 twelve bytes
