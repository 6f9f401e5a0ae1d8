//go:build !race

package simulate

// slower is how many times fewer schedules the short form plays.
const slower = 1
