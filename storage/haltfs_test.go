package storage

import (
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stellmap/stellmap/storage/crashfs"
)

// After a sync of the manifest that failed, Pebble tries again, behind the hole
// that it left. Nothing of that reaches the disk.
func TestAfterAnErrorInTheBackgroundTheStateIsLeftAsItIs(t *testing.T) {
	disk := crashfs.New()
	var mu sync.Mutex
	var failed bool
	var after []string
	disk.Before(func(op crashfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if failed && strings.HasPrefix(op.Path, "state/") {
			after = append(after, op.String())
		}
		if op.Kind == crashfs.Sync && strings.Contains(op.Path, "MANIFEST") && !failed && op.Index > 20 {
			failed = true
			return crashfs.Forget(syscall.EIO)
		}
		return nil
	})
	told := make(chan error, 1)
	tries := 0
	e, err := OpenEngine(EngineOptions{FS: disk, Dir: "state", OnFatal: func(err error) {
		if tries++; tries == 5 { // it has tried again; Pebble tells one after the other
			told <- err
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(2); i < 40; i++ {
		b := e.NewBatch()
		b.Set([]byte("/a"), []byte("1"))
		check(e.Apply(b, Position{Index: i, Term: 1}))
		if err = e.Flush(); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), syscall.EIO.Error()) {
		t.Fatalf("the flush: %v", err)
	}
	select {
	case <-told:
	case <-time.After(20 * time.Second):
		t.Fatal("Pebble does not try again, or what it tried went through")
	}
	mu.Lock()
	defer mu.Unlock()
	if len(after) > 0 {
		t.Errorf("after the failed sync: %q", after)
	}
	if err := e.Close(); err == nil {
		t.Error("it closes as if nothing had happened")
	}
}

// What is wrong with the bytes is kept back until the state is trusted, since it
// may be built anew. What is wrong with the disk is told at once: it would be
// waited for, for ever.
func TestAnErrorOfTheDiskIsNotHeldBack(t *testing.T) {
	var told []error
	h := &heldErrors{to: func(err error) { told = append(told, err) }}
	h.tell(damagedState("a bit has turned"))
	if told != nil {
		t.Errorf("told %v", told)
	}
	h.tell(syscall.EIO)
	if len(told) != 1 || !errors.Is(told[0], syscall.EIO) {
		t.Errorf("told %v, want the error of the disk", told)
	}
}
