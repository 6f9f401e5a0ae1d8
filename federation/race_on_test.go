//go:build race

package federation

// slower is how many times fewer schedules the short form plays: the race detector
// makes each so much slower.
const slower = 10
