//go:build !mutants

package crashtest

// seam is the bug that is planted in the player itself; without the build tag
// there is none.
const seam = ""

func planted(name string) bool { return seam == name }
