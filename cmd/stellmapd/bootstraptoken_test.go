package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/registry"
)

// The first start writes a token by which one access token is made, and nothing else is
// done; then it is good for nothing, and its file goes.
func TestTheBootstrapTokenMakesOneToken(t *testing.T) {
	w := newTown(t)
	file := w.file("data/bootstrap.token")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its file: %v, %v", info, err)
	}
	secret := strings.TrimSpace(string(text))
	if !access.IsBootstrap(secret) || strings.Contains(w.said(), secret) || !strings.Contains(w.said(), "token create --bootstrap "+file) {
		t.Errorf("%q is written, and told is %s", secret, w.said())
	}
	tokens := w.address("HTTP") + "/api/v2/access/tokens"
	for _, who := range []*visitor{w.visitor("", secret), w.visitor("/ns/prod/sa/web", secret)} {
		for _, c := range []struct {
			method, url, body string
			want              int
		}{
			{http.MethodGet, w.address("HTTP") + "/api/v2/access/whoami", "", http.StatusOK},
			{http.MethodGet, tokens, "", http.StatusForbidden},
			{http.MethodDelete, tokens + "/a1", "", http.StatusForbidden},
			{http.MethodPut, w.address("HTTP") + "/api/v2/access/bindings/mine", `{"roles":["system:admin"],"subjects":["/operator/me"]}`, http.StatusForbidden},
			{http.MethodGet, w.address("HTTP") + "/api/v2/members", "", http.StatusForbidden},
			{http.MethodPut, w.address("HTTP") + orders + "a", oneEndpoint, http.StatusForbidden},
			{http.MethodPost, tokens, `{"roles":[]}`, http.StatusBadRequest},
		} {
			if code, body := who.do(c.method, c.url, c.body); code != c.want {
				t.Errorf("%s %s by the bootstrap token: %d, want %d: %s", c.method, c.url, code, c.want, body)
			}
		}
	}
	code, body := w.visitor("", secret).do(http.MethodPost, tokens, `{"roles":["system:admin"]}`)
	var made struct{ Token, GrantedBy string }
	if err := json.Unmarshal([]byte(body), &made); err != nil || code != http.StatusCreated || made.GrantedBy != "bootstrap token" {
		t.Fatalf("the first token: %d %s, %v", code, body, err)
	}
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		if code, body := w.visitor("", secret).do(method, tokens, `{"roles":["system:admin"]}`); code != http.StatusUnauthorized {
			t.Errorf("the bootstrap token is used again: %d %s", code, body)
		}
	}
	operator := w.visitor("", made.Token)
	if code, body := operator.do(http.MethodGet, w.address("HTTP")+"/api/v2/members", ""); code != http.StatusOK {
		t.Errorf("who has the first token is answered %d %s", code, body)
	}
	if code, body := operator.do(http.MethodPost, tokens, `{"roles":["system:reader"]}`); code != http.StatusCreated {
		t.Errorf("who has the first token makes another: %d %s", code, body)
	}
	w.until("the file to be gone", func() bool { _, err := os.Stat(file); return errors.Is(err, fs.ErrNotExist) })
}

// Whoever has lost all tokens makes a new one with the admin token, on the admin port and nowhere else.
func TestTheAdminTokenMakesTokens(t *testing.T) {
	w := newTown(t)
	secret, err := os.ReadFile(w.file("data/admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	administrator := w.visitor("", strings.TrimSpace(string(secret)))
	const path, wish = "/api/v2/access/tokens", `{"roles":["system:admin"]}`
	if code, body := administrator.do(http.MethodPost, w.address("HTTP")+path, wish); code != http.StatusUnauthorized {
		t.Errorf("on the port of clients: %d %s", code, body)
	}
	if code, body := administrator.do(http.MethodPost, w.address("admin")+path, wish); code != http.StatusCreated {
		t.Errorf("on the admin port: %d %s", code, body)
	}
}

// Who founds a cluster writes a bootstrap token, once, and nobody else does. It is good
// for a day, and as long as there was no token.
func TestWhoHasABootstrapToken(t *testing.T) {
	w := newWarden(t)
	now := time.Now
	later := func() time.Time { return now().Add(bootstrapTime) }
	path := func() string { return filepath.Join(t.TempDir(), "bootstrap.token") }
	open := func(path string, founds bool, now func() time.Time) (*bootstrapToken, string) {
		t.Helper()
		b, text, err := openBootstrapToken(path, founds, w.machine, now)
		if err != nil {
			t.Fatal(err)
		}
		return b, text
	}
	if b, _ := open(path(), false, now); b != nil {
		t.Error("one that founds nothing has a bootstrap token")
	}
	first, second := path(), path() // of two founders
	a, text := open(first, true, now)
	b, other := open(second, true, now)
	if !a.good() || !b.good() || text == other {
		t.Errorf("%q and %q of two founders", text, other)
	}
	if again, read := open(first, false, now); read != text || !again.good() {
		t.Errorf("after a restart it is %q, not %q", read, text)
	}
	if old, _ := open(first, false, later); old.good() {
		t.Error("it is good after its time")
	} else if err := old.run(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(first); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file of one that is over: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- b.run(t.Context()) }()
	w.token(registry.Rule{Verbs: []registry.Verb{"read"}, Resources: []registry.Resource{"*"}, Namespaces: []string{"*"}}, nil)
	if err := <-done; err != nil || b.good() {
		t.Errorf("after there was a token the second is good: %v, %v", b.good(), err)
	}
	if _, err := os.Stat(second); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file of the second: %v", err)
	}
	broken := path()
	if err := os.WriteFile(broken, []byte(text[:len(text)-1]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openBootstrapToken(broken, false, w.machine, now); err == nil || !strings.Contains(err.Error(), broken) || strings.Contains(err.Error(), text[:20]) {
		t.Errorf("a part of one is read as %v", err)
	}
}
