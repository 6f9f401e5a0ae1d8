package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/internal/process"
)

// A key that nobody knows or a value that cannot be used is told with file, line and column and what may
// have been meant; the exit code is 2, and nothing was started or written.
func TestBadConfigurationIsToldAndNothingStarts(t *testing.T) {
	for _, c := range []struct {
		name, file string
		want       []string
	}{
		{"unknown key", "[node]\nid = 1\n[server]\n  htp_addr = \"127.0.0.1:0\"\n", []string{"stellmapd.toml:4:3", `"server.htp_addr"`, `did you mean "server.http_addr"`}},
		{"unknown table", "[nod]\nid = 1\n", []string{"stellmapd.toml:1:2", `did you mean "node"`}},
		{"bad value", "[node]\nid = 1\n[log]\nlevel = \"loud\"\n", []string{"stellmapd.toml:4:1", "log.level", "debug, info, warn"}},
		{"wrong type", "[node]\nid = \"one\"\n", []string{"stellmapd.toml:2:1", "node.id", "whole number"}},
		{"not loopback", "[server]\nhttp_addr = \"0.0.0.0:8080\"\n", []string{"stellmapd.toml:2:1", "server.http_addr", "loopback"}},
		{"two mistakes", "[node]\nidd = 1\n[log]\nlevel = \"loud\"\n", []string{"stellmapd.toml:2:1", "stellmapd.toml:4:1", "2 problems"}},
		{"not TOML", "[node\n", []string{"stellmapd.toml:1:", "not TOML"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "stellmapd.toml"), []byte(c.file), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, more := range [][]string{nil, {"--check"}} {
				code, said := runIn(t, dir, append([]string{"--config", "stellmapd.toml"}, more...)...)
				if code != 2 {
					t.Errorf("exit code %d, want 2", code)
				}
				for _, want := range c.want {
					if !strings.Contains(said, want) {
						t.Errorf("%q is missing in:\n%s", want, said)
					}
				}
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
				t.Errorf("it left something behind: %v %v", left, err)
			}
		})
	}
}

// runIn runs stellmapd in a folder to its end, which has to be soon.
func runIn(t *testing.T, dir string, args ...string) (code int, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stopTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "stellmapd"), args...)
	cmd.Dir, cmd.Env = dir, process.Environment()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}
