package archtest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The generated code is what scripts/generate makes of api/proto today.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("npm is needed to generate the code anew: %v", err)
		}
		t.Skipf("not checked, since npm, which scripts/generate needs, is missing: %v", err)
	}
	top := copyOfInputs(t)
	cmd := exec.Command("scripts/generate")
	cmd.Dir = top
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("scripts/generate: %v\n%s", err, out)
	}
	checked := 0
	for _, path := range goFiles(t) {
		if !generated(path) {
			continue
		}
		checked++
		want, err := os.ReadFile(filepath.Join(top, path))
		if err != nil {
			t.Errorf("%s is not generated any more: %v", path, err)
			continue
		}
		if have, ok := read(t, path); ok && !bytes.Equal(have, want) {
			t.Errorf("%s is not what scripts/generate makes of its .proto: run `make generate`", path)
		}
	}
	if checked == 0 {
		t.Error("found no generated code")
	}
}

// copyOfInputs is a folder with all that scripts/generate reads, but no
// generated code. The tools that it installs are shared.
func copyOfInputs(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	for _, path := range texts(t) {
		if !generatorReads(path) {
			continue
		}
		content, ok := read(t, path)
		if !ok {
			continue
		}
		to := filepath.Join(top, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cache, err := filepath.Abs(filepath.Join(root, ".cache"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(cache, filepath.Join(top, ".cache")); err != nil {
		t.Fatal(err)
	}
	return top
}

func generatorReads(path string) bool {
	switch path {
	case "go.mod", "go.sum", "buf.yaml", "buf.gen.yaml", "scripts/generate":
		return true
	}
	return strings.HasPrefix(path, "tools/") || strings.HasSuffix(path, ".proto")
}
