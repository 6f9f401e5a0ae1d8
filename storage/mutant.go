package storage

// Bugs can be planted in this package: those that docs/mutants.md lists. With
// the build tag `mutants` a test turns one on, and the harness of crashes has to
// find it. Without the tag mutant is false everywhere and nothing of it is left.

// unless does what a planted bug leaves out.
func unless(name string, do func() error) error {
	if mutant(name) {
		return nil
	}
	return do()
}
