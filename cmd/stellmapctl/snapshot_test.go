package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stellmap/stellmap/storage"
)

// testBackup is a backup of so many bytes of state, and some more.
func testBackup(t *testing.T, size int) []byte {
	t.Helper()
	engine, err := storage.OpenEngine(storage.EngineOptions{FS: vfs.NewMem(), Dir: "state"})
	if err != nil {
		t.Fatal(err)
	}
	b := engine.NewBatch()
	for i := range size / 100 {
		b.Set(fmt.Appendf(nil, "key-%d", i), bytes.Repeat([]byte{byte(i * i >> 3)}, 100))
	}
	if err := engine.Apply(b, storage.Position{Index: 77, Term: 3}); err != nil {
		t.Fatal(err)
	}
	state, err := engine.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	_, err = storage.WriteBackup(t.Context(), &out, state, storage.SnapshotMeta{ClusterID: 100, Incarnation: "cafe"})
	if err := errors.Join(err, state.Close(), engine.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// saver is a member that sends a backup as a test has it.
type saver struct {
	t      *testing.T
	server *httptest.Server
	send   func(http.ResponseWriter, *http.Request)
	out    bytes.Buffer
	errs   bytes.Buffer
}

func newSaver(t *testing.T, send func(http.ResponseWriter, *http.Request)) *saver {
	s := &saver{t: t, send: send}
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/admin/v1/snapshot" {
			s.send(w, r)
			return
		}
		fmt.Fprintf(w, `{"localNodeId":2,"members":[{"id":1,"admin":"nobody:1"},{"id":2,"admin":%q}]}`, r.Host)
	}))
	t.Cleanup(s.server.Close)
	return s
}

// save runs stellmapctl snapshot save.
func (s *saver) save(ctx context.Context, args ...string) int {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	s.out.Reset()
	s.errs.Reset()
	c := &ctl{lookup: noEnvironment, stdout: &s.out, stderr: &s.errs, transport: transport, now: func() time.Time { return testNow }}
	return c.run(ctx, append([]string{"--server", s.server.URL, "--token", "s3cret", "snapshot", "save"}, args...))
}

// A backup is saved under its name when it is whole, for its owner only, in
// place of an older one; - is stdout, and then nothing else is there.
func TestSnapshotSave(t *testing.T) {
	backup := testBackup(t, 1<<20)
	s := newSaver(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer s3cret" {
			t.Errorf("the token is %q", r.Header.Get("Authorization"))
		}
		w.Write(backup)
	})
	file := filepath.Join(t.TempDir(), "backup")
	if err := os.WriteFile(file, []byte("older"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code := s.save(t.Context(), file); code != exitOK || s.errs.Len() > 0 {
		t.Fatalf("exit code %d: %s", code, &s.errs)
	}
	if !strings.HasPrefix(s.out.String(), "saved "+file+"   cluster 100   index 77 of term 3   ") {
		t.Errorf("it says %q", &s.out)
	}
	got, err := os.ReadFile(file)
	info, statErr := os.Stat(file)
	if err != nil || statErr != nil || !bytes.Equal(got, backup) || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has %d bytes, %v, %v, %v", len(got), info.Mode(), err, statErr)
	}
	if names, err := os.ReadDir(filepath.Dir(file)); err != nil || len(names) != 1 {
		t.Errorf("there are %v, %v", names, err)
	}
	if code := s.save(t.Context(), "-"); code != exitOK || !bytes.Equal(s.out.Bytes(), backup) || !strings.HasPrefix(s.errs.String(), "saved backup   cluster 100") {
		t.Errorf("to stdout: exit code %d, %d bytes, %s", code, s.out.Len(), &s.errs)
	}
	if code := s.save(t.Context(), file, "-o", "json"); code != exitOK || !strings.Contains(s.out.String(), `"index": 77`) {
		t.Errorf("as JSON: exit code %d, %s", code, &s.out)
	}
}

// What is not whole is not kept, and an older backup of that name stays: exit
// code and text say what happened.
func TestSnapshotSaveKeepsNothingBroken(t *testing.T) {
	backup := testBackup(t, 1<<20)
	interrupted, interrupt := context.WithCancel(t.Context())
	for name, c := range map[string]struct {
		send func(http.ResponseWriter, *http.Request)
		ctx  context.Context
		args []string
		exit int
		want string
	}{
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Write(backup[:len(backup)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, t.Context(), nil, exitUnreachable, "was cut off after"},
		"short": {func(w http.ResponseWriter, _ *http.Request) { w.Write(backup[:len(backup)-1]) }, t.Context(), nil, exitFailed, "it was cut short"},
		"changed": {func(w http.ResponseWriter, _ *http.Request) {
			changed := bytes.Clone(backup)
			changed[100] ^= 1
			w.Write(changed)
		}, t.Context(), nil, exitFailed, "its SHA-256 is "},
		"something else": {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>hello") }, t.Context(), nil, exitFailed, "it is no backup"},
		"refused": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"code":"unauthorized","message":"who are you?"}`)
		}, t.Context(), nil, exitDenied, "admin.token in the member's data directory"},
		"older": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"code":"not_found","message":"there is nothing at this path"}`)
		}, t.Context(), nil, exitFailed, "is it an older stellmapd?"},
		"strange": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no gateway", http.StatusBadGateway) }, t.Context(), nil, exitFailed, "unexpected_answer"},
		"late":    {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, t.Context(), []string{"--timeout", "200ms"}, exitTimeout, "no answer from"},
		"interrupted": {func(w http.ResponseWriter, r *http.Request) {
			w.Write(backup[:100])
			w.(http.Flusher).Flush()
			interrupt()
			<-r.Context().Done()
		}, interrupted, nil, exitFailed, "interrupted"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSaver(t, c.send)
			file := filepath.Join(t.TempDir(), "backup")
			if err := os.WriteFile(file, []byte("older"), 0o600); err != nil {
				t.Fatal(err)
			}
			if code := s.save(c.ctx, append(c.args, file)...); code != c.exit || !strings.Contains(s.errs.String(), c.want) {
				t.Errorf("exit code %d, want %d and %q: %s", code, c.exit, c.want, &s.errs)
			}
			got, err := os.ReadFile(file)
			names, dirErr := os.ReadDir(filepath.Dir(file))
			if string(got) != "older" || len(names) != 1 || err != nil || dirErr != nil {
				t.Errorf("there are %v with %d bytes, %v, %v", names, len(got), err, dirErr)
			}
		})
	}
}

// A file that cannot be made is told before the server is asked for anything large.
func TestSnapshotSaveWhereNothingCanBe(t *testing.T) {
	s := newSaver(t, func(http.ResponseWriter, *http.Request) { t.Error("the backup was asked for") })
	if code := s.save(t.Context(), filepath.Join(t.TempDir(), "missing", "backup")); code != exitFailed || !strings.Contains(s.errs.String(), "no such file or directory") {
		t.Errorf("exit code %d: %s", code, &s.errs)
	}
}

// A person sees how far it has come and how fast, on one line that goes at the end.
func TestProgress(t *testing.T) {
	var errs bytes.Buffer
	now := testNow
	p := &progress{c: &ctl{stderr: &errs, now: func() time.Time { return now }}, shown: true, began: now}
	for range 4 {
		p.Write(make([]byte, 3_000_000))
		now = now.Add(150 * time.Millisecond)
	}
	p.end()
	if want := "\r\x1b[K3.0 MB\r\x1b[K9.0 MB   30.0 MB/s\r\x1b[K"; errs.String() != want {
		t.Errorf("it shows %q, want %q", errs.String(), want)
	}
	errs.Reset()
	silent := &progress{c: p.c, began: now}
	silent.Write(make([]byte, 3_000_000))
	silent.end()
	if errs.Len() > 0 || isTerminal(&errs) {
		t.Errorf("nobody looks, and it shows %q", errs.String())
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 1_500_000: "1.5 MB", 3_200_000_000: "3.2 GB", 5_000_000_000_000_000: "5000.0 TB"} {
		if got := size(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}
