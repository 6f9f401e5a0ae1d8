//go:build !race

package federation

// slower is how many times fewer schedules the short form plays.
const slower = 1
