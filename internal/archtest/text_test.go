package archtest

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// unwanted is what no text of the repository contains.
var unwanted = []struct {
	pattern *regexp.Regexp
	why     string
}{
	{regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`), "do it, or leave it out"},
	{regexp.MustCompile(`(^|[\s"'=(:])/(work|root|home|Users)/[A-Za-z]`), "a path of one machine"},
	{regexp.MustCompile(`(?i)\b(pypi|files\.pythonhosted|npmjs|proxy\.golang|sum\.golang|deb\.debian|crates)\.(org|com|io)\b`), "the host of a package registry; its client knows it"},
	{regexp.MustCompile(`(?i)co-authored` + `-by|\blanguage` + ` model\b|\bcoding` + ` agent\b|\bAI` + `-(generated|written)\b`), "the project speaks of itself alone"},
	{regexp.MustCompile(`(?i)(^|[\s(])issue #?[0-9]+\b`), "a number of one tracker; say what it was about"},
}

// foreign are texts that others write: checksums and the licence.
var foreign = map[string]bool{"go.sum": true, "LICENSE": true}

// No text holds notes to oneself, paths of one machine or the hosts of package registries.
func TestTextsHoldNothingUnwanted(t *testing.T) {
	for _, path := range texts(t) {
		if foreign[filepath.Base(path)] {
			continue
		}
		content, ok := read(t, path)
		if !ok {
			continue
		}
		n := 0
		for line := range strings.Lines(string(content)) {
			n++
			for _, u := range unwanted {
				if found := u.pattern.FindString(line); found != "" {
					t.Errorf("%s:%d: %q: %s", path, n, strings.TrimSpace(found), u.why)
				}
			}
		}
	}
}

// Every make target that a text names is there.
func TestMakeTargetsThatTextsNameExist(t *testing.T) {
	makefile, ok := read(t, "Makefile")
	if !ok {
		t.Fatal("no Makefile")
	}
	named := regexp.MustCompile("(?:`|\\$ )make ([a-z0-9-]+)")
	for _, path := range texts(t) {
		content, ok := read(t, path)
		if !ok || filepath.Ext(path) != ".md" {
			continue
		}
		for _, m := range named.FindAllStringSubmatch(string(content), -1) {
			if !strings.Contains("\n"+string(makefile), "\n"+m[1]+":") {
				t.Errorf("%s names `make %s`, which the Makefile has not", path, m[1])
			}
		}
	}
}

// Every test that a document names as its proof is there, and so is every folder and file of a test.
func TestTestsThatDocumentsNameExist(t *testing.T) {
	var code strings.Builder
	files := make(map[string]bool)
	for _, path := range texts(t) {
		files[path], files[filepath.Dir(path)] = true, true
		if content, ok := read(t, path); ok && strings.HasSuffix(path, "_test.go") {
			code.Write(content)
		}
	}
	tests := regexp.MustCompile(`\b(Test|Benchmark|Fuzz)[A-Z][A-Za-z0-9]+\b`)
	stories := regexp.MustCompile(`[a-z0-9/]*testdata/[A-Za-z0-9_./-]*[a-z0-9_]`)
	named := 0
	for path := range files {
		if filepath.Ext(path) != ".md" {
			continue
		}
		content, ok := read(t, path)
		if !ok {
			continue
		}
		for _, name := range tests.FindAllString(string(content), -1) {
			if named++; !strings.Contains(code.String(), "func "+name+"(") {
				t.Errorf("%s names %s, which is not there", path, name)
			}
		}
		for _, name := range stories.FindAllString(string(content), -1) {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(files)), func(f string) bool { return f == name || strings.HasSuffix(f, "/"+name) }) {
				t.Errorf("%s names %s, which is not there", path, name)
			}
		}
	}
	if named == 0 {
		t.Error("no document names a test")
	}
}
