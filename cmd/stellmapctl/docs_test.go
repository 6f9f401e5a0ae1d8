package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// The command lines that docs/query.md shows are ones that stellmapctl takes,
// and every flag that it names is there.
func TestTheCommandsOfTheQueryDocs(t *testing.T) {
	text := docsPage(t, "query.md")
	s := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		out.Header().Set("Content-Type", "application/json")
		out.Write([]byte(`{"revision":7}`))
	}))
	defer s.Close()
	tryCommands(t, text, s.URL)
	get, _, err := (&ctl{lookup: noEnvironment}).command().Find([]string{"get", "instances"})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(text, "`--")[1:] {
		flag, _, _ := strings.Cut(part, "`")
		if get.Flags().Lookup(flag) == nil {
			t.Errorf("get instances has no flag --%s", flag)
		}
	}
}

// The commands that docs/states.md shows are ones that stellmapctl takes.
func TestTheCommandsOfTheStateDocs(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		out.Header().Set("Content-Type", "application/json")
		out.Write([]byte(`{"revision":7,"changed":true,"complete":true,"interested":2,"acknowledged":2,"services":[{"service":"orders"}]}`))
	}))
	defer s.Close()
	text := docsPage(t, "states.md")
	tryCommands(t, text, s.URL)
	for _, part := range strings.Split(text, "`stellmapctl ")[1:] {
		command, _, _ := strings.Cut(part, "`")
		tryCommands(t, "$ stellmapctl "+strings.ReplaceAll(command, "undrain", "undrain orders/orders-1"), s.URL)
	}
}

// The commands that docs/reports.md shows are ones that stellmapctl takes.
func TestTheCommandsOfTheReportDocs(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		out.Header().Set("Content-Type", "application/json")
		out.Write([]byte(`{"revision":7,"services":[{"service":"orders"}]}`))
	}))
	defer s.Close()
	commands := strings.Split(docsPage(t, "reports.md"), "`stellmapctl ")[1:]
	if len(commands) < 2 {
		t.Fatalf("there are %d commands", len(commands))
	}
	for _, part := range commands {
		command, _, _ := strings.Cut(part, "`")
		tryCommands(t, "$ stellmapctl "+command, s.URL)
	}
}

// The commands that docs/access.md shows are ones that stellmapctl takes, and so is the file.
func TestTheCommandsOfTheAccessDocs(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		out.Header().Set("Content-Type", "application/json")
		out.Write([]byte(`{"revision":7,"changed":true,"allowed":true,"token":"smt_1_2","version":1}`))
	}))
	defer s.Close()
	text := docsPage(t, "access.md")
	_, file, _ := strings.Cut(text, "```yaml\n")
	file, _, _ = strings.Cut(file, "```")
	t.Chdir(t.TempDir())
	if err := os.Mkdir("n1", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"orders-team.yaml": file, "n1/bootstrap.token": "smb_of-a-test\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tryCommands(t, text, s.URL)
}

// The commands that docs/proxies.md shows are ones that stellmapctl takes.
func TestTheCommandsOfTheProxyDocs(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		out.Header().Set("Content-Type", "application/json")
		out.Write([]byte(`{"revision":7}`))
	}))
	defer s.Close()
	tryCommands(t, docsPage(t, "proxies.md"), s.URL)
}

func docsPage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tryCommands runs the command lines of a text against a server.
func tryCommands(t *testing.T, text, server string) {
	t.Helper()
	lines := 0
	for line := range strings.Lines(text) {
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ stellmapctl ")
		if !ok {
			continue
		}
		lines++
		var out, errs bytes.Buffer
		c := &ctl{lookup: noEnvironment, stdout: &out, stderr: &errs, transport: http.DefaultTransport, now: time.Now,
			after: func(time.Duration) <-chan time.Time { return time.After(0) }}
		if code := c.run(t.Context(), append([]string{"--server", server}, words(t, command)...)); code != exitOK {
			t.Errorf("%s ends with %d: %s", command, code, errs.String())
		}
	}
	if lines == 0 {
		t.Error("there is no command line")
	}
}
