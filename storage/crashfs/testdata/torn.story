# A write may be kept in any of its sectors; what is lost between is zeros.
do
create a
sync .
write a a1300
----
ok

tears
----
3

outcomes keep=some
----
a=
a=[0*1024][a*276]
a=[0*1300]
a=[0*512][a*512]
a=[0*512][a*512][0*276]
a=[0*512][a*788]
a=[a*1024]
a=[a*1024][0*276]
a=[a*1300]
a=[a*512]
a=[a*512][0*512][a*276]
a=[a*512][0*788]

# The last write of a file is cut at a sector of the file, the rest is kept.
do
write a b1000
create b
write b c700 at 100
----
ok

tears
----
3

crash keep=sectors n=0
----
a=[a*1300]
b=

crash keep=sectors n=1
----
a=[a*1300][b*236]
b=[0*100][c*412]

crash keep=sectors n=2
----
a=[a*1300][b*748]
b=[0*100][c*700]

crash keep=sectors n=3
----
a=[a*1300][b*1000]
b=[0*100][c*700]

outcomes keep=torn
----
a=[a*1300]  b=
a=[a*1300]  b=[0*100][c*412]
a=[a*1300][b*236]  b=
a=[a*1300][b*236]  b=[0*100][c*412]
a=[a*1300][b*748]  b=
a=[a*1300][b*748]  b=[0*100][c*412]

# Over something durable the old bytes stay.
do
sync b
sync .
write b d1024 at 0
----
ok

crash keep=sectors n=1
----
a=[a*1300][b*236]
b=[d*512][c*288]

# A later write may survive an earlier one.
restart keep=nothing
----
a=
b=[0*100][c*700]

do
write b 1st at 800
write b 2nd at 803
----
ok

outcomes keep=some
----
a=  b=[0*100][c*700]
a=  b=[0*100][c*700]000
a=  b=[0*100][c*700]0002nd
a=  b=[0*100][c*700]1st
a=  b=[0*100][c*700]1st000
a=  b=[0*100][c*700]1st2nd
a=  b=[0*100][c*700][0*6]
