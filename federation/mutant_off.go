//go:build !mutants

package federation

// mutant tells whether a bug is planted: one of those that docs/mutants.md lists,
// which the simulated regions have to show. Only a build with the tag has any.
func mutant(string) bool { return false }
