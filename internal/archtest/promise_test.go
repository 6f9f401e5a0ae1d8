package archtest

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testNamed    = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)`")
	testDeclared = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Z]\w*)\(`)
)

// A test that a page of the docs names for a promise is there: one that was renamed, or taken
// out, takes the promise with it.
func TestThePromisesHaveTheirTests(t *testing.T) {
	declared := make(map[string]bool)
	for _, path := range goFiles(t) {
		if !strings.HasSuffix(path, "_test.go") {
			continue
		}
		text, _ := read(t, path)
		for _, m := range testDeclared.FindAllSubmatch(text, -1) {
			declared[string(m[1])] = true
		}
	}
	named := 0
	for _, path := range texts(t) {
		if filepath.Dir(path) != "docs" || !strings.HasSuffix(path, ".md") {
			continue
		}
		text, _ := read(t, path)
		for _, m := range testNamed.FindAllSubmatch(text, -1) {
			named++
			if !declared[string(m[1])] {
				t.Errorf("%s names %s, which is no test", path, m[1])
			}
		}
	}
	if named < 100 {
		t.Errorf("the docs name %d tests", named)
	}
}
