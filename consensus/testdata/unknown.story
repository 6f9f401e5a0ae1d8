# An entry of a kind that this version does not know stops the member. Skipping
# it would give it another state than those that understand it.
cluster size=1
----

propose at=1
a
----
index 3: did a

inject at=1 kind=99
from the future
----
1: ended

ended at=1
----
apply entry 4 of term 2: kind 99: this version does not understand the entry: start one that is at least as new as the leader's

propose at=1
b
----
consensus: stopped

# Started again it meets the entry again. (A power cut, since whether the commit
# index was written before the end is a matter of chance; it is not synced.)
crash at=1
----

start at=1
----
state at 1, log 2 to 4, committed 3, replayed 2, torn bytes 0, founded false

ended at=1
----
apply entry 4 of term 2: kind 99: this version does not understand the entry: start one that is at least as new as the leader's
