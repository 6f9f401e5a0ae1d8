# The way to replace a file: write another, sync it, rename it, sync the
# directory. The old or the new is there at any moment, and the new in the end.
do
create a
write a old
sync a
sync .
create tmp
write tmp new
sync tmp
rename tmp a
----
ok

outcomes keep=some
----
a=new
a=old
a=old  tmp=new

do
sync .
----
ok

outcomes keep=some
----
a=new

# Without the sync before the rename it may be there without its bytes.
do
create tmp
write tmp newer
rename tmp a
sync .
----
ok

outcomes keep=some
----
a=
a=[0*5]
a=newer

# A rename from one directory to another is still one change: the name is never
# lost and never doubled. The sync of either directory makes it durable, and the
# creation that it needs.
restart keep=nothing
----
a=

do
mkdir d
sync .
create b
rename b d/b
----
ok

outcomes keep=some
----
a=  b=  d/
a=  d/
a=  d/  d/b=

do
sync d
----
ok

outcomes keep=some
----
a=  d/  d/b=

# A directory takes all in it along.
do
mkdir e
rename d e/d
----
ok

outcomes keep=some
----
a=  d/  d/b=
a=  d/  d/b=  e/
a=  e/  e/d/  e/d/b=

do
sync e
----
ok

outcomes keep=some
----
a=  e/  e/d/  e/d/b=

# No crash puts a directory inside itself.
do
sync .
mkdir x
mkdir y
sync .
rename x y/x
rename y/x x
rename y x/y
----
ok

outcomes keep=some
----
a=  e/  e/d/  e/d/b=  x/  x/y/
a=  e/  e/d/  e/d/b=  x/  y/
a=  e/  e/d/  e/d/b=  y/  y/x/

# With a journal a crash keeps the first so many changes: what was done later in
# the same or another directory is not there without what was done before.
restart keep=nothing
----
a=
e/
e/d/
e/d/b=
x/
y/

do
removeall a
removeall e
removeall x
removeall y
mkdir p
mkdir q
sync .
create p/1
create q/2
----
ok

outcomes keep=journal
----
p/  p/1=  q/
p/  p/1=  q/  q/2=
p/  q/

outcomes keep=some
----
p/  p/1=  q/
p/  p/1=  q/  q/2=
p/  q/
p/  q/  q/2=
