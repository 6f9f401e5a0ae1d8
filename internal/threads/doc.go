// Package threads is how the work of a member is shared among threads, and how
// they wait: goroutines, unless somebody who wants to see a whole cluster in one
// thread gives a Threads that runs them in turn. Whoever waits says so to it first,
// and then finds what it waits for.
package threads
