//go:build mutants

package federation

import "sync/atomic"

// planted is the one bug that is turned on, if any.
var planted atomic.Value

// Plant turns one bug on, and whatever was on before off. "" is none.
func Plant(name string) { planted.Store(name) }

// mutant tells whether a bug is planted.
func mutant(name string) bool { return planted.Load() == name }
