# What does not fit is not written; the rest is.
do
space 1000
create a
write a a600
create b
write b b600
----
write b: no space left on device

show
----
a=[a*600]
b=[b*400]

usage
----
1000 of 1000 bytes, 0 left

# To write over what is there needs no room.
do
write a A600 at 0
----
ok

# A file takes room until it has no name and is not open.
do
remove a
----
ok

usage
----
1000 of 1000 bytes, 0 left

do
close a
----
ok

usage
----
400 of 1000 bytes, 600 left

# Room can be taken before it is used, and a sync keeps it for after a crash.
do
preallocate b 900
sync b
sync .
----
ok

usage
----
900 of 1000 bytes, 100 left

do
create c
write c c101
----
write c: no space left on device

restart keep=nothing
----
b=[b*400]

usage
----
900 of 1000 bytes, 100 left

do
space 1500
preallocate b 1499
write b b700 at 800
----
ok

usage
----
1500 of 1500 bytes, 0 left

show
----
b=[b*400][0*400][b*700]

trace
----
1 preallocate b at 0, 1499 bytes
2 write b at 800, 700 bytes

# A file with two names takes room once, as long as it has one of them.
do
link b c
sync .
----
ok

restart keep=nothing
----
b=[b*400]
c=[b*400]

do
remove b
----
ok

usage
----
900 of 1500 bytes, 600 left

do
remove c
----
ok

usage
----
0 of 1500 bytes, 1500 left
