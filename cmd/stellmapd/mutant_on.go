//go:build mutants

package main

import (
	"os"
	"strconv"

	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/storage"
)

// mutantVariable names the bug that is planted. Nothing reads it in a build
// without the tag.
const mutantVariable = "STELLMAP_MUTANT"

func init() {
	bug := os.Getenv(mutantVariable)
	storage.Plant(bug)
	consensus.Plant(bug)
	registry.Plant(bug)
	fewEvents = os.Getenv(eventsVariable)
	for _, name := range []string{mutantVariable, eventsVariable} { // they are no settings
		if err := os.Unsetenv(name); err != nil {
			panic(err)
		}
	}
}

// eventsVariable says how many changes are kept for watchers, the same on all members,
// so that those who fall behind what is kept are not left untested.
const eventsVariable = "STELLMAP_EVENTS"

var fewEvents string

func eventsKept() int {
	if fewEvents == "" {
		return 0
	}
	n, err := strconv.Atoi(fewEvents)
	if err != nil {
		panic(err)
	}
	return n
}
