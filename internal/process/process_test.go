package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

const patience = 10 * time.Second

func shell(t *testing.T, name, script string) *Process {
	t.Helper()
	p, err := Start(Options{Name: name, Path: "/bin/sh", Args: []string{"-c", script}, Logs: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func within(t *testing.T, what string, condition func() error) {
	t.Helper()
	if _, err := Within(t.Context(), patience, what, condition); err != nil {
		t.Fatal(err)
	}
}

// A kill takes the children of the process along.
func TestKillEndsTheGroup(t *testing.T) {
	p := shell(t, "parent", "sleep 1000 & echo child $!; wait")
	child := 0
	within(t, "the child's id", func() error {
		_, err := fmt.Sscanf(p.Output(), "child %d", &child)
		return err
	})
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	within(t, "the child to end", func() error { return gone(child) })
}

// gone is nil when there is no such process, or only what its parent has not waited for.
func gone(pid int) error {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil || strings.Contains(string(stat), ") Z ") {
		return nil
	}
	return fmt.Errorf("%d lives", pid)
}

// A process that does not heed SIGTERM is killed, and Stop says so.
func TestStopInsists(t *testing.T) {
	p := shell(t, "deaf", "trap '' TERM; echo ready; while :; do sleep 0.01; done")
	within(t, "the trap", func() error {
		if !strings.Contains(p.Output(), "ready") {
			return errors.New("not set")
		}
		return nil
	})
	if err := p.Stop(10 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "did not end") {
		t.Errorf("Stop says %v", err)
	}
	if p.Running() || p.ExitCode() != -1 {
		t.Errorf("running %v, exit code %d", p.Running(), p.ExitCode())
	}
}

// Output is that of one start, not of those before it, and the exit code is told.
func TestOutputBelongsToOneStart(t *testing.T) {
	dir := t.TempDir()
	for _, word := range []string{"first", "second"} {
		p, err := Start(Options{Name: "same", Path: "/bin/sh", Args: []string{"-c", "echo $WORD; exit 3"}, Env: []string{"WORD=" + word}, Logs: dir})
		if err != nil {
			t.Fatal(err)
		}
		if code := p.ExitCode(); code != 3 {
			t.Errorf("exit code %d", code)
		}
		if got := strings.TrimSpace(p.Output()); got != word {
			t.Errorf("output %q, want %q", got, word)
		}
	}
}

// What was waited for in vain is told, with the condition's last word.
func TestUntilTellsWhatWasMissing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	_, err := Until(ctx, "a wonder", func() error {
		if n++; n == 3 {
			cancel()
		}
		return fmt.Errorf("no wonder %d", n)
	})
	if err == nil || !strings.Contains(err.Error(), "a wonder") || !strings.Contains(err.Error(), "no wonder") {
		t.Errorf("got %v", err)
	}
}

// What goes over a link ends when it is cut, and nothing gets through until it is healed.
func TestALinkIsCutAndHealed(t *testing.T) {
	far, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	go func() {
		for {
			conn, err := far.Accept()
			if err != nil {
				return // the test is over
			}
			if _, err := conn.Write([]byte("x")); err != nil {
				conn.Close()
			}
		}
	}()
	link, err := NewLink(far.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	hear := func() (net.Conn, error) {
		conn, err := net.Dial("tcp", link.Address())
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		return conn, err
	}
	for range 2 {
		conn, err := hear()
		if err != nil {
			t.Fatalf("over a link that is whole: %v", err)
		}
		link.Set(true)
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("what was on the way did not end with the link")
		}
		if _, err := hear(); err == nil {
			t.Error("something got over a link that is cut")
		}
		link.Set(false)
	}
	if err := link.Close(); err != nil {
		t.Error(err)
	}
}
