# A new directory's name belongs to its parent: without that, all in it is gone.
do
mkdir d/e
create d/e/f
sync d/e/f
sync d/e
sync d
----
ok

outcomes keep=some
----
d/  d/e/  d/e/f=
nothing

# Each change is there or not. The upper ones are needed by the lower.
restart keep=nothing
----
nothing

do
mkdir d/e
create d/e/f
----
ok

outcomes keep=some
----
d/
d/  d/e/
d/  d/e/  d/e/f=
nothing

# A removed name may come back, with its bytes.
do
write d/e/f bytes
sync d/e/f
sync d/e
sync d
sync .
remove d/e/f
----
ok

outcomes keep=some
----
d/  d/e/
d/  d/e/  d/e/f=bytes

# To remove a name whose creation was lost is nothing; so is to remove a
# directory that is not empty.
do
create d/e/g
remove d/e/g
remove d/e
----
ok

outcomes keep=some
----
d/
d/  d/e/
d/  d/e/  d/e/f=bytes
d/  d/e/  d/e/f=bytes  d/e/g=
d/  d/e/  d/e/g=

# A directory that is durably gone has taken what was in it with it.
do
sync d
----
ok

outcomes keep=some
----
d/

# RemoveAll may stop anywhere.
do
create d/a
create d/b
sync d
removeall d
----
ok

outcomes keep=some
----
d/
d/  d/a=
d/  d/a=  d/b=
d/  d/b=
nothing

# Create in a name's place is a new file: the old bytes are the old file's. It
# removes and makes, so that a crash may leave none.
restart keep=nothing
----
d/
d/a=
d/b=

do
create d/a
write d/a old
sync d/a
sync d
create d/a
write d/a new
sync d/a
----
ok

outcomes keep=some
----
d/  d/a=new  d/b=
d/  d/a=old  d/b=
d/  d/b=

# A link is one more name; each is durable for itself.
do
sync d
remove d/b
sync d
mkdir l
sync .
link d/a l/a
sync l
remove d/a
----
ok

outcomes keep=some
----
d/  d/a=new  l/  l/a=new
d/  l/  l/a=new

do
write l/a NE at 0
----
ok

crash keep=all
----
d/
l/
l/a=NEw

# Two names of one file are so after a crash, too.
restart keep=nothing
----
d/
d/a=new
l/
l/a=new

do
write l/a AN at 0
remove l/a
----
ok

show
----
d/
d/a=ANw
l/

# What was moved out of a directory before that was removed is in the one place
# or the other.
do
mkdir m
create m/f
sync m
sync .
rename m/f f
remove m
----
ok

outcomes keep=some
----
d/  d/a=ANw  f=  l/
d/  d/a=ANw  f=  l/  l/a=ANw
d/  d/a=ANw  f=  l/  l/a=ANw  m/
d/  d/a=ANw  f=  l/  m/
d/  d/a=ANw  l/  l/a=ANw  m/  m/f=
d/  d/a=ANw  l/  m/  m/f=
d/  d/a=new  f=  l/
d/  d/a=new  f=  l/  l/a=new
d/  d/a=new  f=  l/  l/a=new  m/
d/  d/a=new  f=  l/  m/
d/  d/a=new  l/  l/a=new  m/  m/f=
d/  d/a=new  l/  m/  m/f=
