package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/spf13/cobra"

	"github.com/stellmap/stellmap/internal/freeport"
	"github.com/stellmap/stellmap/internal/version"
)

// What each command asks of the server, prints in each format, and ends with,
// as a person would see it: > is a request, ! is stderr.
func TestGolden(t *testing.T) {
	datadriven.Walk(t, "testdata/golden", func(t *testing.T, path string) {
		w := newWorld(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "answer":
				w.answer(d.Input)
				return ""
			case "ctl":
				return w.ctl(d)
			}
			t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
			return ""
		})
	})
}

func noEnvironment(string) (string, bool) { return "", false }

// The process as main runs it: over real sockets it says who it is, and a port
// where nobody listens is exit code 5.
func TestRunOverRealSockets(t *testing.T) {
	agent := ""
	s := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		agent = r.UserAgent()
		out.Header().Set("Content-Type", "application/json")
		out.Write([]byte(`{"revision":7,"services":[]}`))
	}))
	defer s.Close()
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"--server", s.URL + "/", "get", "services"}, noEnvironment, &out, &errs); code != exitOK {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	if want := "stellmapctl/" + version.Number; agent != want || !strings.HasSuffix(out.String(), "revision 7\n") {
		t.Errorf("User-Agent %q, want %q; it printed %q", agent, want, out.String())
	}
	nobody, err := freeport.Addresses(1)
	if err != nil {
		t.Fatal(err)
	}
	errs.Reset()
	code := run(t.Context(), []string{"--server", "http://" + nobody[0], "status"}, noEnvironment, &out, &errs)
	if code != exitUnreachable || !strings.Contains(errs.String(), "connection refused") {
		t.Errorf("nobody there: exit code %d, stderr %q", code, errs.String())
	}
}

// Every command says what it is for, at length, with an example.
func TestHelpIsThere(t *testing.T) {
	c := &ctl{lookup: noEnvironment}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Long == "" || !strings.Contains(cmd.Example, "stellmapctl") {
			t.Errorf("%s lacks a word, a paragraph or an example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(c.command())
}

// The age of a thing in at most two units; what a fast clock makes the future is now.
func TestAge(t *testing.T) {
	for _, one := range []struct {
		d    time.Duration
		want string
	}{
		{-time.Minute, "0s"},
		{1999 * time.Millisecond, "1s"},
		{61 * time.Second, "1m1s"},
		{2*time.Hour + 59*time.Minute + 59*time.Second, "2h59m"},
		{50 * time.Hour, "2d2h"},
	} {
		if got := age(one.d); got != one.want {
			t.Errorf("age(%v) is %s, want %s", one.d, got, one.want)
		}
	}
}
