# A sync that fails as on Linux: the error is told once. What it should have
# written can be read until a crash, and the next sync finds it clean.
do
create a
write a one
sync a
sync .
write a two
failing sync a
----
sync a: input/output error

show
----
a=onetwo

do
sync a
----
ok

crash keep=nothing
----
a=one

crash keep=all
----
a=one

# What is written and synced after that is durable, with a hole before it.
do
write a three
----
ok

crash keep=all
----
a=one000three

do
sync a
----
ok

show
----
a=onetwothree

outcomes keep=some
----
a=one000three

# Names are forgotten in the same way.
do
create b
failing sync .
----
syncdir .: input/output error

do
sync .
----
ok

show
----
a=onetwothree
b=

crash keep=all
----
a=one000three

# A sync that is refused has done nothing, and may be tried again.
do
create c
write c c
refused sync c
----
sync c: input/output error

do
sync c
sync .
----
ok

crash keep=nothing
----
a=one000three
c=c

# Any operation may be refused.
do
refused rename c d
----
rename c: input/output error

trace
----
1 create a
2 write a at 0, 3 bytes
3 sync a, 3 bytes
4 syncdir .
5 write a at 3, 3 bytes
6 sync a, 3 bytes, failed: input/output error
7 sync a, 0 bytes
8 write a at 6, 5 bytes
9 sync a, 5 bytes
10 create b
11 syncdir ., failed: input/output error
12 syncdir .
13 create c
14 write c at 0, 1 bytes
15 sync c, 1 bytes, refused: input/output error
16 sync c, 1 bytes
17 syncdir .
18 rename c to d, refused: input/output error
