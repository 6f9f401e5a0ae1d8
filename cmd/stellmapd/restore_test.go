package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// registerOrder puts an instance into the registry and returns its revision.
func (p *process) registerOrder(id string) uint64 {
	p.t.Helper()
	body := `{"endpoints":[{"name":"http","protocol":"http","host":"127.0.0.1","port":9001}],"leaseTtlSeconds":3600}`
	request, err := http.NewRequest(http.MethodPut, p.address("HTTP")+"/api/v2/namespaces/default/services/orders/instances/"+id, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := p.client.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct{ Revision uint64 }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || response.StatusCode >= 300 {
		p.t.Fatalf("%d, %v", response.StatusCode, err)
	}
	return answer.Revision
}

// backup saves what the admin port sends.
func (p *process) backup(dir string) string {
	p.t.Helper()
	token, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		p.t.Fatal(err)
	}
	status, body := p.get("admin", "/admin/v1/snapshot", "Authorization", "Bearer "+strings.TrimSpace(string(token)))
	if status != http.StatusOK {
		p.t.Fatalf("%d %s", status, body)
	}
	file := filepath.Join(p.t.TempDir(), "backup")
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return file
}

// A backup of a running member becomes a new cluster: what was registered
// before it is there, what came later is not, revisions go on after 2^40, and
// it says what it did and what comes next, which works.
func TestRestore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "old")
	p := launch(t, append(anyPorts, "--data-dir", dir)...)
	p.answers("HTTP", "/readyz/xds", http.StatusOK) // it has its incarnation
	before := p.registerOrder("before")
	file := p.backup(dir)
	p.registerOrder("after")
	p.end(exitOK)

	restored := filepath.Join(t.TempDir(), "new folder")
	said := launch(t, "restore", "--from", file, "--data-dir", restored, "--cluster-id", "200").fails(exitOK)
	for _, want := range []string{
		"restored " + file + " into " + restored, "cluster 100, incarnation ", "1 services, 1 instances", "node 1 of 1, cluster 200, incarnation ",
		"go on after 1099511627776", " addresses of old members", "Next: stellmapd --cluster-id 200 --data-dir '" + restored + "'",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing in:\n%s", want, said)
		}
	}
	incarnations := regexp.MustCompile(`incarnation ([0-9a-f]{32})`).FindAllStringSubmatch(said, -1)
	if len(incarnations) != 2 || incarnations[0][1] == incarnations[1][1] {
		t.Errorf("the incarnations are %v", incarnations)
	}

	p = launch(t, append(anyPorts, "--data-dir", restored, "--cluster-id", "200")...)
	p.answers("HTTP", "/readyz", http.StatusOK)
	for id, want := range map[string]int{"before": http.StatusOK, "after": http.StatusNotFound} {
		if status, body := p.get("HTTP", "/api/v2/namespaces/default/services/orders/instances/"+id); status != want {
			t.Errorf("%s: %d %s", id, status, body)
		}
	}
	if again := p.registerOrder("again"); again <= 1<<40 || before >= 1<<40 {
		t.Errorf("the revisions are %d and %d", before, again)
	}
	if said := launch(t, "restore", "--from", file, "--data-dir", restored).fails(exitFailed); !strings.Contains(said, "not empty: it holds ") ||
		!strings.Contains(said, "identity.json") || !strings.Contains(said, "the data of node 1 of cluster 200") {
		t.Errorf("a member that runs was restored over: %s", said)
	}
}

// What cannot be restored from, or into, is told, and nothing is written.
func TestRestoreRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "old")
	p := launch(t, append(anyPorts, "--data-dir", dir)...)
	p.answers("HTTP", "/readyz", http.StatusOK)
	file := p.backup(dir)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged")
	if err := os.WriteFile(damaged, good[:len(good)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	full := t.TempDir()
	for i := range 7 {
		if err := os.WriteFile(filepath.Join(full, fmt.Sprintf("file-%d", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fresh := filepath.Join(t.TempDir(), "fresh")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--data-dir", fresh}, exitUsage, "--from is missing"},
		{[]string{"--from", file, "--data-dir", fresh, "--node-id", "0"}, exitUsage, "node.id"},
		{[]string{"--from", file + "-none", "--data-dir", fresh}, exitFailed, "no such file"},
		{[]string{"--from", damaged, "--data-dir", fresh}, exitFailed, "it was cut short"},
		{[]string{"--from", file, "--data-dir", full}, exitFailed, "it holds file-0, file-1, file-2, file-3, file-4 and 2 more. Nothing was changed"},
		{[]string{"--from", file, "--data-dir", dir}, exitFailed, "the data of node 1 of cluster 100"},
	} {
		if said := launch(t, append([]string{"restore"}, c.args...)...).fails(c.code); !strings.Contains(said, c.want) {
			t.Errorf("%v: %q is missing in:\n%s", c.args, c.want, said)
		}
	}
	if _, err := os.Stat(fresh); !os.IsNotExist(err) {
		t.Errorf("a refused restore has made its folder: %v", err)
	}
	if said := launch(t, "restore", "--from", file, "--data-dir", fresh, "--incarnation", "0123").fails(exitFailed); !strings.Contains(said, "was not made by restoring this file") {
		t.Error(said)
	}
}

// The engine is not closed while a backup reads it: stopping ends the backups and
// waits for them, and none begins after.
func TestBackupsEndBeforeTheEngine(t *testing.T) {
	b := newBackups()
	ctx, done, ok := b.begin(t.Context())
	if !ok {
		t.Fatal("none may begin")
	}
	closed := make(chan error, 1)
	go func() { closed <- b.Close() }()
	select {
	case <-ctx.Done():
	case <-time.After(waitMax):
		t.Fatal("it is not told to end")
	}
	if !errors.Is(context.Cause(ctx), registry.ErrStopping) {
		t.Errorf("it ends for %v", context.Cause(ctx))
	}
	select {
	case <-closed:
		t.Error("closed while one runs")
	default:
	}
	done()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, _, ok := b.begin(t.Context()); ok {
		t.Error("one begins after the end")
	}
}
