package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// testNow is the time of every test.
var testNow = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// testToken is the lease token that every test makes.
func testToken() string { return "a-token-of-the-test" }

// world is a network with the servers that a test has scripted, and what
// stellmapctl did there. A server exists once an answer of it does.
type world struct {
	t *testing.T

	mu      sync.Mutex // guards what follows
	servers map[string]*httptest.Server
	answers map[string]scripted // by method and URL
	asked   []string            // one text for each request
}

// scripted is an answer. Instead of giving one, a server may hang until the
// client gives up, or drop the connection.
type scripted struct {
	status     int
	kind       string // the content type
	retryAfter string
	location   string

	authentication string
	body           string
	hang, drop     bool
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, servers: make(map[string]*httptest.Server), answers: make(map[string]scripted)}
	t.Cleanup(func() {
		for _, s := range w.servers {
			s.CloseClientConnections()
			s.Close()
		}
	})
	return w
}

// answer reads "METHOD URL|PATH STATUS [hang|drop|text|retry=N|location=URL|authentication=off]" and, below, a body.
func (w *world) answer(input string) {
	first, body, _ := strings.Cut(input, "\n")
	words := strings.Fields(first)
	method, address := words[0], words[1]
	if strings.HasPrefix(address, "/") {
		address = serverDefault + address
	}
	a := scripted{kind: "application/json", body: body}
	a.status, _ = strconv.Atoi(words[2])
	if a.status >= 400 && !strings.HasSuffix(address, "/readyz") {
		a.kind = "application/problem+json"
	}
	for _, word := range words[2:] {
		switch name, value, _ := strings.Cut(word, "="); name {
		case "hang":
			a.hang = true
		case "drop":
			a.drop = true
		case "text":
			a.kind = "text/html"
		case "retry":
			a.retryAfter = value
		case "location":
			a.location = value
		case "authentication":
			a.authentication = value
		}
	}
	host := strings.Split(address, "/")[2]
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[method+" "+address] = a
	if w.servers[host] == nil {
		w.servers[host] = httptest.NewServer(http.HandlerFunc(w.serve))
	}
}

// down takes a server off the network.
func (w *world) down(host string) {
	w.mu.Lock()
	s := w.servers[host]
	delete(w.servers, host)
	w.mu.Unlock()
	s.CloseClientConnections()
	s.Close()
}

func (w *world) serve(out http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.t.Error(err)
	}
	what := r.Method + " http://" + r.Host + r.RequestURI
	text := "> " + what + "\n"
	if token := r.Header.Get("Authorization"); token != "" {
		text += "> Authorization: " + token + "\n"
	}
	if token := r.Header.Get(leaseTokenHeader); token != "" {
		text += "> " + leaseTokenHeader + ": " + token + "\n"
	}
	if version := r.Header.Get("If-Match"); version != "" {
		text += "> If-Match: " + version + "\n"
	}
	if len(body) > 0 {
		text += fmt.Sprintf("> %s %s\n", r.Header.Get("Content-Type"), body)
	}
	w.mu.Lock()
	w.asked = append(w.asked, text)
	a, ok := w.answers[what]
	w.mu.Unlock()
	switch {
	case !ok:
		http.Error(out, "the test has no answer to "+what, http.StatusTeapot)
	case a.hang:
		<-r.Context().Done()
	case a.drop:
		panic(http.ErrAbortHandler)
	default:
		out.Header().Set("Content-Type", a.kind)
		if a.retryAfter != "" {
			out.Header().Set("Retry-After", a.retryAfter)
		}
		if a.authentication != "" {
			out.Header().Set("X-StellMap-Authentication", a.authentication)
		}
		if a.location != "" {
			out.Header().Set("Location", a.location)
		}
		out.WriteHeader(a.status)
		io.WriteString(out, a.body)
	}
}

// transport leads to the scripted servers by the names that they have here.
func (w *world) transport() *http.Transport {
	// Without connections to keep: whether one is noticed to be gone before it is used again is a matter of luck.
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		w.mu.Lock()
		s := w.servers[address]
		w.mu.Unlock()
		if s == nil {
			host, port, _ := net.SplitHostPort(address)
			n, _ := strconv.Atoi(port)
			return nil, &net.OpError{Op: "dial", Net: network, Addr: &net.TCPAddr{IP: net.ParseIP(host), Port: n}, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		}
		return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
	}}
	w.t.Cleanup(t.CloseIdleConnections)
	return t
}

// requests are those since the last call, sorted where several were in flight at once.
func (w *world) requests(sorted bool) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := w.asked
	w.asked = nil
	if sorted {
		slices.Sort(asked)
	}
	return strings.Join(asked, "")
}

// ctl is one run of stellmapctl: what it asked, printed and ended with.
func (w *world) ctl(d *datadriven.TestData) string {
	var out, errs bytes.Buffer
	c := &ctl{lookup: environment(d), stdout: &out, stderr: &errs, transport: w.transport(), now: func() time.Time { return testNow }, newToken: testToken}
	code := c.run(w.t.Context(), words(w.t, d.Input))
	return w.requests(true) + out.String() + marked(errs.String()) + fmt.Sprintf("exit %d\n", code)
}

// marked is stderr in a golden.
func marked(errs string) string {
	var b strings.Builder
	for line := range strings.Lines(errs) {
		b.WriteString("! " + line)
	}
	return b.String()
}

// environment is what the test says with env=(NAME:value).
func environment(d *datadriven.TestData) func(string) (string, bool) {
	env := make(map[string]string)
	for _, arg := range d.CmdArgs {
		for _, v := range arg.Vals {
			name, value, _ := strings.Cut(v, "|")
			env[name] = value
		}
	}
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

// words splits a command line as a shell does, single quotes included.
func words(t *testing.T, line string) []string {
	t.Helper()
	var out []string
	var word strings.Builder
	quoted, begun := false, false
	for _, r := range line {
		switch {
		case r == '\'':
			quoted, begun = !quoted, true
		case !quoted && (r == ' ' || r == '\n'):
			if begun {
				out = append(out, word.String())
				word.Reset()
			}
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if quoted {
		t.Fatalf("%q has an open quote", line)
	}
	if begun {
		out = append(out, word.String())
	}
	return out
}

// untilAsked returns once a request has arrived.
func (w *world) untilAsked() {
	deadline := time.After(10 * time.Second)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		w.mu.Lock()
		n := len(w.asked)
		w.mu.Unlock()
		if n > 0 {
			return
		}
		select {
		case <-look.C:
		case <-deadline:
			w.t.Fatal("no request came")
		}
	}
}
