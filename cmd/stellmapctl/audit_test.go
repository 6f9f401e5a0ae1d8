package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/access/audit"
)

// An audit log is verified offline: it holds, or the line is named; a mark tells of an end
// that was cut off.
func TestAuditVerify(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(audit.Config{File: file, BytesMax: 1 << 20, Keep: 1})
	if err != nil {
		t.Fatal(err)
	}
	log.Record(t.Context(), audit.Entry{Does: "registerInstance", On: "prod/orders/a"})
	log.Record(t.Context(), audit.Entry{Does: "deregisterInstance", On: "prod/orders/a", Denied: true})
	over, end := context.WithCancel(t.Context())
	end()
	if err := log.Run(over); err != nil {
		t.Fatal(err)
	}
	verify := func(exit int, want string, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if code := run(t.Context(), append([]string{"audit", "verify"}, args...), noEnvironment, &out, &out); code != exit || !strings.Contains(out.String(), want) {
			t.Errorf("exit code %d, want %d and %q: %s", code, exit, want, &out)
		}
		return strings.TrimSpace(out.String())
	}
	said := verify(exitOK, "1 file holds   lines 1 to 3", file)
	_, mark, _ := strings.Cut(said, "mark ")
	verify(exitOK, `"last": 3`, file, "--mark", mark, "-o", "json")
	verify(exitUsage, "--mark: \"7\" is not NUMBER:HASH", file, "--mark", "7")
	verify(exitUsage, "wants the files")
	verify(exitNotFound, "no such file", file+".not")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	for want, content := range map[string]string{
		"audit.log:2: its hash is not that of its text": lines[0] + strings.Replace(lines[1], "orders", "ledger", 1) + lines[2],
		"line 3 was there: its end is cut off":          lines[0] + lines[1],
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		verify(exitFailed, want, file, "--mark", mark)
	}
}
