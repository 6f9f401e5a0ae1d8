# Names that there is nothing under count, too, with what is said of them, and what is left is in the next part.
# From: ours

member response-bytes=40
----
nothing

add a/1
----
nothing

send eds subscribe=(nobody-of-a-long-name-1.prod,nobody-of-a-long-name-2.prod,nobody-of-a-long-name-3.prod)
----
eds r2.1 -nobody-of-a-long-name-1.prod !nobody-of-a-long-name-1.prod NotFound

ack eds
----
eds r2.2 -nobody-of-a-long-name-2.prod !nobody-of-a-long-name-2.prod NotFound

ack eds
----
eds r2.3 -nobody-of-a-long-name-3.prod !nobody-of-a-long-name-3.prod NotFound
