package main

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/access/audit"
)

// do makes a call of the HTTP port.
func (p *process) do(method, path, body string, headers ...string) (status int) {
	p.t.Helper()
	request, err := http.NewRequest(method, p.address("HTTP")+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := p.client.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	response.Body.Close() // its status is all that is asked
	return response.StatusCode
}

// A member writes down who changed what, to the last call before its end, and goes on in the
// same file after a restart. No secret that somebody has shown it is in the audit log, its log,
// its metrics or its data, right or wrong.
func TestAMemberKeepsAnAuditLogAndNoSecret(t *testing.T) {
	const (
		lease = "planted-lease-token-0001"
		wrong = "planted-wrong-token-0002"
		key   = "planted-idempotency-0003"
		at    = "/api/v2/namespaces/prod/services/orders/instances/a"
	)
	dir, file := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "audit.log")
	args := append(anyPorts, "--data-dir", dir, "--audit-file", file, "--audit-reads", "on", "--log-level", "debug")
	p := launch(t, args...)
	p.answers("HTTP", "/readyz", http.StatusOK)
	admin, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want   int
		method string
		path   string
		header []string
	}{
		{http.StatusCreated, http.MethodPut, at, []string{"X-StellMap-Lease-Token", lease, "Idempotency-Key", key}},
		{http.StatusForbidden, http.MethodDelete, at, []string{"X-StellMap-Lease-Token", wrong}},
		{http.StatusUnauthorized, http.MethodDelete, at + "?force=true", []string{"Authorization", "Bearer " + wrong}},
		{http.StatusBadRequest, http.MethodPut, at + "?token=" + wrong, []string{"X-StellMap-Lease-Token", lease}},
		{http.StatusOK, http.MethodDelete, at + "?force=true", []string{"Authorization", "Bearer " + strings.TrimSpace(string(admin))}},
	} {
		if got := p.do(c.method, c.path, `{"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}]}`, c.header...); got != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, got, c.want)
		}
	}
	_, metrics := p.get("HTTP", "/metrics")
	p.end(exitOK)
	first, err := audit.Verify([]string{file}, audit.Mark{})
	if err != nil || first.Last < 5 || first.Denied != 2 {
		t.Errorf("the audit log: %+v, %v; want two denials among the lines", first, err)
	}
	secrets := []string{lease, wrong, key, strings.TrimSpace(string(admin))}
	mustHaveNoSecret(t, "the metrics", metrics, secrets)
	mustHaveNoSecret(t, "the log", p.said(), secrets)
	mustHaveNoSecretIn(t, file, secrets)
	mustHaveNoSecretIn(t, dir, secrets)

	launch(t, args...).end(exitOK)
	if r, err := audit.Verify([]string{file}, audit.Mark{Seq: first.Last, Hash: first.Hash}); err != nil || r.Last <= first.Last {
		t.Errorf("after a restart: %+v, %v", r, err)
	}
}

func mustHaveNoSecret(t *testing.T, what, text string, secrets []string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(text, s) {
			t.Errorf("%q is in %s", s, what)
		}
	}
}

// mustHaveNoSecretIn looks into all files but the one that is there for a secret. None can be
// read by others.
func mustHaveNoSecretIn(t *testing.T, path string, secrets []string) {
	t.Helper()
	err := filepath.WalkDir(path, func(at string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "admin.token" {
			return err
		}
		b, err := os.ReadFile(at)
		mustHaveNoSecret(t, at, string(b), secrets)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
