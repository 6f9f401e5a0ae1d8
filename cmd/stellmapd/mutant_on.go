//go:build mutants

package main

import (
	"os"

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
	if err := os.Unsetenv(mutantVariable); err != nil { // it is no setting
		panic(err)
	}
}
