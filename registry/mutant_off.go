//go:build !mutants

package registry

// mutant tells whether a bug is planted: one of those that docs/mutants.md lists,
// which the simulator has to find. Only a build with the tag has any.
func mutant(string) bool { return false }

// swapLate is what a planted bug does in publish.
func (r *ring) swapLate([]Event) []Event { panic("registry: built without mutants") }
