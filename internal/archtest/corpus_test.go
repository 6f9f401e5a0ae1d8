package archtest

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/internal/corpus"
)

var targetDeclared = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)

// fuzzTargets are all of the repository, each as its package's folder and its name.
func fuzzTargets(t *testing.T) []string {
	t.Helper()
	var targets []string
	for _, path := range goFiles(t) {
		text, _ := read(t, path)
		for _, m := range targetDeclared.FindAllSubmatch(text, -1) {
			targets = append(targets, filepath.Dir(path)+"/"+string(m[1]))
		}
	}
	slices.Sort(targets)
	return targets
}

// Each fuzz target begins with files that say what they are, and small enough to be read.
func TestEveryFuzzTargetHasACorpus(t *testing.T) {
	const least = 2
	targets := fuzzTargets(t)
	named := make(map[string]int)
	for _, path := range texts(t) {
		folder, target, ok := strings.Cut(filepath.Dir(path), "/testdata/fuzz/")
		if !ok {
			continue
		}
		text, ok := read(t, path)
		if !ok {
			continue
		}
		target = folder + "/" + target
		if !slices.Contains(targets, target) {
			t.Errorf("%s belongs to no fuzz target: remove it", path)
		}
		if len(text) > corpus.BytesMax || !strings.HasPrefix(string(text), corpus.Head) {
			t.Errorf("%s is no text for a fuzz target of %d bytes at most", path, corpus.BytesMax)
		}
		if !foundByFuzzing.MatchString(filepath.Base(path)) {
			named[target]++
		}
	}
	for _, target := range targets {
		if named[target] < least {
			t.Errorf("%s has %d files with a name in testdata/fuzz, want %d: see internal/corpus", target, named[target], least)
		}
	}
}

// foundByFuzzing is how package testing names what it finds.
var foundByFuzzing = regexp.MustCompile(`^[0-9a-f]{16}$`)

// `make fuzz` runs each target that there is.
func TestMakeFuzzRunsEveryTarget(t *testing.T) {
	cmd := exec.Command("scripts/fuzz", "list")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("scripts/fuzz list: %v", err)
	}
	runs := strings.Fields(string(out))
	slices.Sort(runs)
	if targets := fuzzTargets(t); !slices.Equal(runs, targets) || len(targets) == 0 {
		t.Errorf("make fuzz runs %q\nthere are %q", runs, targets)
	}
}
