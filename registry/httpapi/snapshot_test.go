package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// backupServer serves the admin port over a real socket, with the bounds of the product but for the changes.
func backupServer(t *testing.T, snapshot func(context.Context, io.Writer) error, changes ...func(*http.Server)) (*member, string) {
	t.Helper()
	m := newMember(t, func(c *Config) { c.AdminToken, c.Snapshot = "s3cret", snapshot })
	m.api.limits.timeout = 20 * time.Millisecond
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(m.api.AdminHandler(), nil)
	for _, change := range changes {
		change(s.Config)
	}
	s.Start()
	t.Cleanup(s.Close)
	return m, s.URL + "/admin/v1/snapshot"
}

// getBackup asks for a backup and reads it to its end.
func getBackup(t *testing.T, method, url, token string) (int, []byte, error) {
	t.Helper()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	q, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+token)
	answer, err := transport.RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, body, err
}

// TestABackupMayTakeLong shows that it outlives the deadlines of reading,
// writing and of a call, as long as it goes on, and that its context does.
func TestABackupMayTakeLong(t *testing.T) {
	const deadline, parts = time.Second, 12 // the deadline is for the request, too, however busy the machine
	_, url := backupServer(t, func(ctx context.Context, w io.Writer) error {
		for i := range parts {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(deadline / (parts - 2)):
			}
			if _, err := fmt.Fprintf(w, "part %d\n", i); err != nil {
				return err
			}
		}
		return nil
	}, func(s *http.Server) {
		s.ReadTimeout, s.ReadHeaderTimeout, s.WriteTimeout = deadline, deadline, deadline
	})
	code, body, err := getBackup(t, http.MethodGet, url, "s3cret")
	if code != http.StatusOK || err != nil || strings.Count(string(body), "\n") != parts {
		t.Errorf("%d, %v, %q", code, err, body)
	}
}

// TestABackupThatNobodyReadsEnds shows that a client that stands still lets go of the state.
func TestABackupThatNobodyReadsEnds(t *testing.T) {
	ended := make(chan error, 1)
	m, url := backupServer(t, func(_ context.Context, w io.Writer) error {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				ended <- err
				return err
			}
		}
	})
	m.api.limits.stall = 50 * time.Millisecond
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer s3cret")
	answer, err := transport.RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	select {
	case err := <-ended:
		if !strings.Contains(err.Error(), "timeout") {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the state is still held")
	}
}

// TestABackupThatFailsIsNoBackup shows that an error before the first byte is
// answered like any other, and that one in the middle cuts the answer off.
func TestABackupThatFailsIsNoBackup(t *testing.T) {
	var fails error
	var before []byte
	m, url := backupServer(t, func(_ context.Context, w io.Writer) error {
		if len(before) > 0 {
			if _, err := w.Write(before); err != nil {
				return err
			}
		}
		return fails
	})
	for _, c := range []struct {
		err  error
		code int
		want string
	}{
		{registry.ErrStopping, http.StatusServiceUnavailable, `"code":"stopping"`},
		{errors.New("the disk is on fire"), http.StatusInternalServerError, `"code":"internal"`},
	} {
		before, fails = nil, c.err
		if code, body, err := getBackup(t, http.MethodGet, url, "s3cret"); code != c.code || err != nil || !bytes.Contains(body, []byte(c.want)) {
			t.Errorf("%v: %d, %s, %v", c.err, code, body, err)
		}
	}
	before, fails = make([]byte, 1<<20), errors.New("the disk is on fire")
	if code, body, err := getBackup(t, http.MethodGet, url, "s3cret"); code != http.StatusOK || err == nil {
		t.Errorf("half a backup is answered with %d, %d bytes and no error", code, len(body))
	}
	if !strings.Contains(m.logs.String(), "the disk is on fire") {
		t.Errorf("the log says %s", m.logs)
	}
}

// TestABackupWantsTheToken shows who gets none, and that HEAD costs nothing.
func TestABackupWantsTheToken(t *testing.T) {
	taken := 0
	_, url := backupServer(t, func(_ context.Context, w io.Writer) error {
		taken++
		_, err := io.WriteString(w, "all of it")
		return err
	})
	for _, c := range []struct {
		method, token string
		code, taken   int
	}{
		{http.MethodGet, "wrong", http.StatusUnauthorized, 0},
		{http.MethodHead, "s3cret", http.StatusOK, 0},
		{http.MethodPost, "s3cret", http.StatusMethodNotAllowed, 0},
		{http.MethodGet, "s3cret", http.StatusOK, 1},
	} {
		if code, _, err := getBackup(t, c.method, url, c.token); code != c.code || err != nil || taken != c.taken {
			t.Errorf("%s with %s: %d, %v, %d were taken", c.method, c.token, code, err, taken)
		}
	}
	m := newMember(t, nil)
	w := httptest.NewRecorder()
	m.api.AdminHandler().ServeHTTP(w, request(http.MethodGet, "/admin/v1/snapshot", ""))
	mustEqual(t, "the status where there is none", w.Code, http.StatusNotFound)
	mustEqual(t, "the public port's", m.call(http.MethodGet, "/admin/v1/snapshot", "").Code, http.StatusNotFound)
}
