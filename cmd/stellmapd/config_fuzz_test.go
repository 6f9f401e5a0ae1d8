package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/stellmap/stellmap/internal/corpus"
)

// FuzzConfig: whatever is in the file, it is settings that can be used, or refused with a place
// in the file for each mistake.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		"", "[node]\nid = 2\n", "[node]\nid = \"one\"\nid = 3\n", "[[cluster.members]]\nid = 1\n", "[cluster]\nmembers = [{id = 1}]\n", "[[federation.regions]]\nregion = \"b\"\ngrpc = [\"127.0.0.1:1\"]\n",
		"[audit]\nfile = \"a\"\nmax_bytes = \"64KiB\"\n", "[auth]\nreplication_token = \"planted-planted-planted\"\n", "a.b.c = [1, {x = 2}]\n", "[health]\nallow = [\"10.0.0.0/8\", 7]\n", "x = '''\n", "[server]\nhttp_addr = \"0.0.0.0:80\"\n",
	} {
		f.Add([]byte(s))
	}
	for name, s := range map[string]string{
		"a node": "[node]\nid = 2\n", "a key twice": "[node]\nid = \"one\"\nid = 3\n", "a text without an end": "x = '''\n", "beyond loopback": "[server]\nhttp_addr = \"0.0.0.0:80\"\n",
	} {
		corpus.Add(f, name, []byte(s))
	}
	path := filepath.Join(f.TempDir(), "stellmapd.toml")
	nothing := func(string) (string, bool) { return "", false }
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		flags := pflag.NewFlagSet("stellmapd", pflag.ContinueOnError)
		addFlags(flags)
		c, err := loadConfig(path, flags, nothing)
		if err == nil {
			if c.Node.ID == 0 || len(c.Cluster.Members)+len(c.Cluster.Join) == 0 || !c.atHome() && c.TLS.CertFile == "" && c.Server.InsecureBeyondLoopback != on {
				t.Errorf("%q is taken as %+v", text, c)
			}
			return
		}
		var wrong *ConfigError
		if errors.As(err, &wrong) && len(wrong.Problems) == 0 {
			t.Errorf("%q is refused for no reason", text)
		}
	})
}

// A file that is broken near a secret is refused without showing it.
func TestABrokenFileShowsNoSecret(t *testing.T) {
	const secret = "planted-planted-planted"
	path := filepath.Join(t.TempDir(), "stellmapd.toml")
	for _, line := range []string{
		`replication_token = "` + secret, `replication_token = ` + secret, `replication_token = '` + secret + `"`, `replication_token = ["` + secret + `"]`, `replication_token = {a = "` + secret + `"}`,
		`replication_token = "` + secret + `" x`, `replication_token = "` + secret + ` ` + secret + `"`, `replication_token = "` + secret + `\q"`, `replication_token "` + secret + `"`,
		"replication_token = \"" + secret + "\"\nreplication_token = \"" + secret + "\"",
	} {
		if err := os.WriteFile(path, []byte("[auth]\n"+line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		flags := pflag.NewFlagSet("stellmapd", pflag.ContinueOnError)
		addFlags(flags)
		_, err := loadConfig(path, flags, func(string) (string, bool) { return "", false })
		if err == nil || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", line, err)
		}
	}
}
