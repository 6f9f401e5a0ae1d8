//go:build !mutants

package storage

// mutant tells whether a bug is planted.
func mutant(string) bool { return false }

// reuseLast is what a planted bug does in the place of rewriteLast.
func (l *Log) reuseLast(int64) (*segment, error) { panic("storage: built without mutants") }
