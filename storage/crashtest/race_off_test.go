//go:build !race

package crashtest

// slower is how many times fewer cases the short forms take.
const slower = 1
