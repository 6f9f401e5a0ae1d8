//go:build mutants

package main

import (
	"os"

	"github.com/stellmap/stellmap/storage"
)

// mutantVariable names the bug that is planted. Nothing reads it in a build
// without the tag.
const mutantVariable = "STELLMAP_MUTANT"

func init() {
	storage.Plant(os.Getenv(mutantVariable))
	if err := os.Unsetenv(mutantVariable); err != nil { // it is no setting
		panic(err)
	}
}
