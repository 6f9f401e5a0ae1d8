# A sync of a file keeps its bytes, not its name.
do
create a
write a hello
sync a
----
ok

crash keep=nothing
----
nothing

outcomes keep=some
----
a=hello
nothing

# A sync of its directory keeps its name.
do
sync .
----
ok

outcomes keep=some
----
a=hello

# What is written after the sync is lost, or there, or zeros.
do
write a world
----
ok

show
----
a=helloworld

crash keep=nothing
----
a=hello

crash keep=all
----
a=helloworld

outcomes keep=some
----
a=hello
a=hello[0*5]
a=helloworld

# A name that is durable does not make bytes durable.
do
create b
write b bytes
sync .
----
ok

crash keep=nothing
----
a=hello
b=

# What is written over something durable is the old or the new.
do
write a HEL at 0
----
ok

outcomes keep=some
----
a=HELlo  b=
a=HELlo  b=[0*5]
a=HELlo  b=bytes
a=HELlo[0*5]  b=
a=HELlo[0*5]  b=[0*5]
a=HELlo[0*5]  b=bytes
a=HELloworld  b=
a=HELloworld  b=[0*5]
a=HELloworld  b=bytes
a=hello  b=
a=hello  b=[0*5]
a=hello  b=bytes
a=hello[0*5]  b=
a=hello[0*5]  b=[0*5]
a=hello[0*5]  b=bytes
a=helloworld  b=
a=helloworld  b=[0*5]
a=helloworld  b=bytes

trace
----
1 create a
2 write a at 0, 5 bytes
3 sync a, 5 bytes
4 syncdir .
5 write a at 5, 5 bytes
6 create b
7 write b at 0, 5 bytes
8 syncdir .
9 write a at 0, 3 bytes

# After a crash all that is left is durable, and the story begins anew.
restart keep=all
----
a=HELloworld
b=bytes

crash keep=nothing
----
a=HELloworld
b=bytes
