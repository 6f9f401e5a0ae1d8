package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// The command lines that docs/query.md shows are ones that stellmapctl takes,
// and every flag that it names is there.
func TestTheCommandsOfTheQueryDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/query.md")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		out.Header().Set("Content-Type", "application/json")
		out.Write([]byte(`{"revision":7}`))
	}))
	defer s.Close()
	lines := 0
	for line := range strings.Lines(string(text)) {
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ stellmapctl ")
		if !ok {
			continue
		}
		lines++
		var out, errs bytes.Buffer
		if code := run(t.Context(), append([]string{"--server", s.URL}, words(t, command)...), noEnvironment, &out, &errs); code != exitOK {
			t.Errorf("%s ends with %d: %s", command, code, errs.String())
		}
	}
	if lines == 0 {
		t.Error("there is no command line")
	}
	get, _, err := (&ctl{lookup: noEnvironment}).command().Find([]string{"get", "instances"})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(text), "`--")[1:] {
		flag, _, _ := strings.Cut(part, "`")
		if get.Flags().Lookup(flag) == nil {
			t.Errorf("get instances has no flag --%s", flag)
		}
	}
}
