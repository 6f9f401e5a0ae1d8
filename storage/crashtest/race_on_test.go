//go:build race

package crashtest

// slower is how many times fewer cases the short forms take: the race detector
// makes each so much slower.
const slower = 10
