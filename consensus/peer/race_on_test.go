//go:build race

package peer

// raceDetector is whether it watches.
const raceDetector = true
