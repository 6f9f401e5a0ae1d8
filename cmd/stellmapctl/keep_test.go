package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// kept is a register --keep under a clock that the test moves.
type kept struct {
	w      *world
	cancel context.CancelFunc
	waits  chan time.Duration // it waits for so long; unbuffered, so that the test knows when
	ticks  chan time.Time
	ended  chan int // its exit code

	mu  sync.Mutex // guards what follows
	now time.Time
	out strings.Builder // stdout, and stderr marked with !
}

// stream is one of kept's two outputs.
type stream struct {
	k    *kept
	mark string
}

func (s stream) Write(p []byte) (int, error) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.k.out.WriteString(s.mark + string(p))
	return len(p), nil
}

func startKept(w *world, d *datadriven.TestData) *kept {
	ctx, cancel := context.WithCancel(w.t.Context())
	k := &kept{w: w, cancel: cancel, waits: make(chan time.Duration), ticks: make(chan time.Time), ended: make(chan int, 1), now: testNow}
	after := func(d time.Duration) <-chan time.Time {
		k.waits <- d
		return k.ticks
	}
	now := func() time.Time {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.now
	}
	c := &ctl{lookup: environment(d), stdout: stream{k, ""}, stderr: stream{k, "! "}, transport: w.transport(), now: now, after: after, newToken: testToken}
	go func() { k.ended <- c.run(ctx, words(w.t, d.Input)) }()
	return k
}

// settle is what happened until it waits again or ends.
func (k *kept) settle() string {
	last := ""
	select {
	case d := <-k.waits:
		last = fmt.Sprintf("waits %v\n", d)
	case code := <-k.ended:
		last = fmt.Sprintf("exit %d\n", code)
	case <-time.After(10 * time.Second):
		last = "neither waits nor ends\n"
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	said := k.out.String()
	k.out.Reset()
	return k.w.requests(false) + said + last
}

// tick moves the clock to when it wants to renew, and `late` beyond.
func (k *kept) tick(by time.Duration) string {
	k.mu.Lock()
	k.now = k.now.Add(by)
	at := k.now
	k.mu.Unlock()
	k.ticks <- at
	return k.settle()
}

// register --keep renews three times in each TTL, registers again what is gone,
// says what is wrong once and when it is over, and deregisters at the end.
func TestKeep(t *testing.T) {
	datadriven.Walk(t, "testdata/keep", func(t *testing.T, path string) {
		w := newWorld(t)
		var k *kept
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "answer":
				w.answer(d.Input)
				return ""
			case "down":
				w.down(strings.TrimPrefix(serverDefault, "http://"))
				return ""
			case "start":
				k = startKept(w, d)
				return k.settle()
			case "interrupted-start": // the signal comes while the server thinks
				k = startKept(w, d)
				w.untilAsked()
				k.cancel()
				return k.settle()
			case "tick":
				by, err := time.ParseDuration(d.CmdArgs[0].Key)
				if err != nil {
					t.Fatal(err)
				}
				return k.tick(by)
			case "signal":
				k.cancel()
				return k.settle()
			}
			t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
			return ""
		})
		if k != nil {
			k.cancel()
		}
	})
}
