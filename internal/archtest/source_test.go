package archtest

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// goFiles are all Go files of the repository, as paths below the root.
func goFiles(t *testing.T) []string {
	t.Helper()
	files := slices.DeleteFunc(texts(t), func(path string) bool { return filepath.Ext(path) != ".go" })
	if len(files) == 0 {
		t.Fatal("found no Go file")
	}
	return files
}

// read is the content of a file, ok is false for one that git has and the disk has not.
func read(t *testing.T, path string) (content []byte, ok bool) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if os.IsNotExist(err) {
		return nil, false
	}
	if err != nil {
		t.Fatal(err)
	}
	return content, true
}

func generated(path string) bool { return strings.HasSuffix(path, ".pb.go") }

// Every Go file is as gofmt would write it.
func TestCodeIsFormatted(t *testing.T) {
	for _, path := range goFiles(t) {
		content, ok := read(t, path)
		if !ok {
			continue
		}
		formatted, err := format.Source(content)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if !bytes.Equal(formatted, content) {
			t.Errorf("%s: gofmt would change it", path)
		}
	}
}

// Every package opens with a doc.go that says what it is.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		all := slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles)
		if !slices.ContainsFunc(all, func(f string) bool { return !generated(f) }) {
			continue // nothing but generated code
		}
		path := filepath.Join(p.folder(), "doc.go")
		content, ok := read(t, path)
		if !ok {
			t.Errorf("%s has no doc.go", p.folder())
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), path, content, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if len(parsed.Doc.Text()) < 40 {
			t.Errorf("%s says next to nothing: what is it, what does it promise, what will it never do?", path)
		}
	}
}

// banned is a name that must not be used, and where it may be.
type banned struct {
	pkg, name string   // name "*" is any
	homes     []string // as in vocabulary
	onlyTests bool     // the ban is on tests only
	why       string
}

var bans = []banned{
	{"time", "Sleep", []string{"bench/..."}, true, "wait for a condition"},
	{"os", "Getenv", []string{"cmd/...", "examples/...", "internal/...", "bench/..."}, false, "settings come in through cmd"},
	{"os", "LookupEnv", []string{"cmd/...", "internal/...", "bench/..."}, false, "settings come in through cmd"},
	{"os", "Environ", []string{"cmd/...", "examples/...", "internal/...", "bench/..."}, false, "settings come in through cmd"},
	{"os", "Exit", []string{"cmd/...", "examples/...", "internal/e2e", "internal/grpcclients/golang", "internal/dist", "bench/..."}, false, "return an error"},
	{"slog", "Default", nil, false, "loggers are passed in"},
	{"slog", "SetDefault", nil, false, "loggers are passed in"},
	{"prometheus", "DefaultRegisterer", nil, false, "several members live in one process"},
	{"prometheus", "DefaultGatherer", nil, false, "several members live in one process"},
	{"prometheus", "MustRegister", nil, false, "several members live in one process"},
	{"promauto", "*", nil, false, "several members live in one process"},
	{"http", "DefaultServeMux", nil, false, "several members live in one process"},
	{"http", "HandleFunc", nil, false, "several members live in one process"},
	{"http", "DefaultClient", nil, false, "it has no time-out"},
	{"http", "Get", nil, false, "it has no time-out"},
}

// Nothing is global, nothing but the shell reads the environment, and no test sleeps.
func TestBannedNames(t *testing.T) {
	for _, path := range goFiles(t) {
		content, ok := read(t, path)
		if !ok || generated(path) {
			continue
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, path, content, parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				checkName(t, path, set.Position(s.Pos()).Line, s)
			}
			return true
		})
	}
}

func checkName(t *testing.T, path string, line int, s *ast.SelectorExpr) {
	t.Helper()
	x, ok := s.X.(*ast.Ident)
	if !ok {
		return
	}
	for _, b := range bans {
		if x.Name != b.pkg || b.name != "*" && s.Sel.Name != b.name {
			continue
		}
		if b.onlyTests && !strings.HasSuffix(path, "_test.go") || in(filepath.Dir(path), b.homes) {
			continue
		}
		t.Errorf("%s:%d: %s.%s: %s", path, line, x.Name, s.Sel.Name, b.why)
	}
}
