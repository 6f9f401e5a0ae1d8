package storage

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A disk that is full while the state is flushed: whoever waits is told, at
// once and from then on, also when there is room again; and it can be closed.
func TestAFlushThatFailsIsFinal(t *testing.T) {
	var full atomic.Bool
	disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpCreate) {
			return syscall.ENOSPC
		}
		return nil
	}))
	fatal := make(chan error, 1)
	e, err := OpenEngine(EngineOptions{FS: disk, Dir: "state", OnFatal: func(err error) {
		select {
		case fatal <- err:
		default:
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	b := e.NewBatch()
	b.Set([]byte("/a"), []byte("1"))
	if err := e.Apply(b, Position{Index: 2, Term: 1}); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	ends := func(what string, do func() error) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- do() }()
		select {
		case err := <-done:
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s: %v, want ENOSPC", what, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s waits for ever", what)
		}
	}
	ends("flush", e.Flush)
	if err := <-fatal; !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the owner was told %v", err)
	}
	full.Store(false)
	ends("flush when there is room again", e.Flush)
	full.Store(true)
	ends("close", e.Close)
}
