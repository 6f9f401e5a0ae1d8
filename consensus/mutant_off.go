//go:build !mutants

package consensus

// mutant tells whether a bug is planted: one of those that docs/mutants.md lists,
// which the simulator has to find. Only a build with the tag has any.
func mutant(string) bool { return false }
