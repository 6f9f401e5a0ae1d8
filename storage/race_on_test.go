//go:build race

package storage

// slower is how many times fewer cases the long tests take: the race detector
// makes each of them slow.
const slower = 10
