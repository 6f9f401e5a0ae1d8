package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/storage"
)

// register puts so many instances and waits until each is acknowledged.
func (p *process) register(from, to int) {
	p.t.Helper()
	for i := from; i < to; i++ {
		url := fmt.Sprintf("%s/api/v2/namespaces/default/services/orders/instances/i-%d", p.address("HTTP"), i)
		body := fmt.Sprintf(`{"endpoints":[{"protocol":"http","host":"10.0.0.1","port":%d}],"leaseTtlSeconds":3600}`, i+1)
		request, err := http.NewRequest(http.MethodPut, url, strings.NewReader(body))
		if err != nil {
			p.t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := p.client.Do(request)
		if err != nil {
			p.t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode/100 != 2 {
			p.t.Fatalf("PUT %s: %s", url, response.Status)
		}
	}
}

// has tells how many instances a linearizable read finds.
func (p *process) has(want int) {
	p.t.Helper()
	p.answers("HTTP", "/readyz", http.StatusOK)
	_, body := p.get("HTTP", "/api/v2/namespaces/default/services/orders/instances")
	if n := strings.Count(body, `"instanceId"`); n != want {
		p.t.Errorf("it has %d instances, want %d", n, want)
	}
}

// snapshots are the files that are kept.
func snapshots(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "snapshot", "*.meta"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A member takes snapshots as it goes. When its state is lost or damaged it builds it anew from the newest one that
// is intact and the log, says so, and has everything that was acknowledged.
func TestADamagedStateIsBuiltAnew(t *testing.T) {
	dir := t.TempDir()
	args := append(anyPorts, "--data-dir", dir, "--snapshot-entries", "20", "--snapshot-tail", "5")
	p := launch(t, args...)
	p.answers("HTTP", "/readyz", http.StatusOK)
	p.register(0, 40)
	p.until("a snapshot", func() bool { return len(snapshots(t, dir)) >= 1 }) // two if registering took long
	p.register(40, 80)
	p.until("another snapshot", func() bool { return len(snapshots(t, dir)) == 2 })
	p.register(80, 90)
	p.end(exitOK)

	for _, c := range []struct {
		name   string
		damage func(t *testing.T)
	}{
		{"the folder is gone", func(t *testing.T) { must(t, os.RemoveAll(filepath.Join(dir, "state"))) }},
		{"CURRENT is gone", func(t *testing.T) { must(t, os.Remove(filepath.Join(dir, "state", "CURRENT"))) }},
		{"a table is damaged", func(t *testing.T) { flip(t, filepath.Join(dir, "state", "*", "*.sst")) }},
		{"the manifest is gone", func(t *testing.T) { remove(t, filepath.Join(dir, "state", "*", "MANIFEST-*")) }},
		{"the newest snapshot is damaged, too", func(t *testing.T) {
			must(t, os.RemoveAll(filepath.Join(dir, "state")))
			flip(t, strings.TrimSuffix(snapshots(t, dir)[1], ".meta")+".snap")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.damage(t)
			p := launch(t, args...)
			p.has(90)
			if !strings.Contains(p.said(), "after the damaged state was built anew from the snapshot at") {
				t.Errorf("the banner does not say so:\n%s", p.said())
			}
		})
	}
	p = launch(t, args...)
	p.has(90)
	if strings.Contains(p.said(), "built anew") {
		t.Errorf("a state that is whole is built anew:\n%s", p.said())
	}
	p.end(exitOK)

	// Without a snapshot it is told what is wrong, and nothing begins anew.
	must(t, os.RemoveAll(filepath.Join(dir, "state")))
	for _, s := range snapshots(t, dir) {
		must(t, os.Truncate(strings.TrimSuffix(s, ".meta")+".snap", 100))
	}
	said := launch(t, args...).fails(exitFailed)
	for _, want := range []string{"the state cannot be used", "and it cannot be built anew", ".snap"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing in:\n%s", want, said)
		}
	}
}

// Damage in what only consensus reads, later, is found in time: while the state can still be built anew.
func TestDamageInWhatConsensusKeepsIsFoundAtTheStart(t *testing.T) {
	dir := t.TempDir()
	n := &node{nodeOptions: nodeOptions{logger: slog.New(slog.DiscardHandler)}, metrics: prometheus.NewRegistry(), failed: make(chan error, 1)}
	n.config.Snapshot.Keep = 2
	store, _, err := n.openStore(t.Context(), dir, consensus.Base())
	must(t, err)
	var entries []storage.Entry
	for i := uint64(2); i <= 9; i++ {
		entries = append(entries, storage.Entry{Index: i, Term: 1})
	}
	must(t, store.Log.Append(entries, &storage.HardState{Term: 1, Commit: 9}))
	b := store.Engine.NewBatch()
	for i := range 1000 { // many blocks
		b.Set(fmt.Appendf(nil, "%srequest/%020d", storage.MetaPrefix, i), make([]byte, 100))
	}
	must(t, store.Engine.Apply(b, storage.Position{Index: 9, Term: 1}))
	state, err := store.Engine.Snapshot()
	must(t, err)
	_, err = store.Snapshots.Save(t.Context(), state, storage.SnapshotMeta{ClusterID: 1})
	must(t, err)
	must(t, state.Close())
	must(t, store.Close())

	tables, err := filepath.Glob(filepath.Join(dir, "state", "*", "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatalf("%v (%v), want one table", tables, err)
	}
	table, err := os.ReadFile(tables[0])
	must(t, err)
	table[len(table)/3] ^= 0x5a
	must(t, os.WriteFile(tables[0], table, 0o600))

	n.metrics = prometheus.NewRegistry()
	store, _, err = n.openStore(t.Context(), dir, consensus.Base())
	must(t, err)
	if n.rebuilt == nil || n.rebuilt.From.Index != 9 || store.Engine.AppliedIndex().Index != 9 {
		t.Errorf("it is at %d, built anew: %+v", store.Engine.AppliedIndex().Index, n.rebuilt)
	}
	must(t, store.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// flip changes the bytes in the middle of all files of a pattern; twice is no change.
func flip(t *testing.T, pattern string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no such file (%v)", pattern, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		for i := len(b) / 3; i < len(b)*2/3; i++ {
			b[i] ^= 0x5a
		}
		must(t, os.WriteFile(f, b, 0o600))
	}
}

func remove(t *testing.T, pattern string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no such file (%v)", pattern, err)
	}
	for _, f := range files {
		must(t, os.Remove(f))
	}
}
