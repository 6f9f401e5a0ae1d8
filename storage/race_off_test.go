//go:build !race

package storage

// slower is how many times fewer cases the long tests take.
const slower = 1
