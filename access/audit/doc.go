// Package audit writes down who did what, and who was not let, into a file that tells
// when somebody has changed it.
//
// A line of the file is one act, as JSON. Each has the hash of the line before it and one
// of its own, so that a line that was changed, taken out, put in or moved breaks the
// chain. A file that is full is put aside under its name and the number of its first
// line, and the chain goes on in the next one. Verify follows it through the files.
//
// What the chain cannot tell is that the end of the newest file was cut off at a line:
// for that somebody elsewhere has to keep the number and the hash of a line.
//
// Record costs its caller a place in a queue. One goroutine, in Run, writes: at once, and
// synced within a second. What happens when the queue is full or the disk does not take
// it is decided in one place, Log.Ready: either writes are refused until it does, or they
// go on and the lines that are missing are counted, in the file, too.
package audit
