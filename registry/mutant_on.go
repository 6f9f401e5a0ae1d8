//go:build mutants

package registry

import (
	"sync"
	"sync/atomic"
)

// planted is the one bug that is turned on, if any.
var planted atomic.Value

// Plant turns one bug on, and whatever was on before off. "" is none.
func Plant(name string) { planted.Store(name) }

// mutant tells whether a bug is planted.
func mutant(name string) bool { return planted.Load() == name }

// late is what rings hold back until they publish next.
var late sync.Map

func (r *ring) swapLate(events []Event) []Event {
	before, _ := late.Swap(r, events)
	held, _ := before.([]Event)
	return held
}
