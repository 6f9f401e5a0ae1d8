package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// How TestTheContractOfV1 calls members, and the texts that it expects.

// wire calls members as the SDKs do.
type wire struct {
	*cluster
	t       *testing.T
	began   time.Time
	stays   *member      // is never killed; it does not lead at the beginning
	streams *http.Client // without a bound in time
}

// v1Kept is how many changes members keep here: more than the SDKs let go by.
const v1Kept = 1_000

const v1Path = "/api/v1/registry/"

// said is an answer as it came.
type said struct {
	status   int
	kind     string // its Content-Type
	header   http.Header
	body     string
	revision uint64 // of a write
}

// send makes one call.
func (w *wire) send(m *member, method, path, body string) said {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), javaCallTime)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, method, m.url()+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	q.Header.Set("Accept", "application/json")
	if body != "" {
		q.Header.Set("Content-Type", "application/json")
	}
	r, err := w.streams.Do(q)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	s := said{status: r.StatusCode, kind: r.Header.Get("Content-Type"), header: r.Header, body: w.timeless(string(text))}
	if at := r.Header.Get("X-StellMap-Revision"); at != "" {
		if s.revision, err = strconv.ParseUint(at, 10, 64); err != nil {
			w.t.Fatal(err)
		}
	}
	return s
}

// write is a POST that has to be answered with a body.
func (w *wire) write(m *member, call, body, want string) said {
	w.t.Helper()
	s := w.send(m, http.MethodPost, v1Path+call, body)
	if s.status != http.StatusOK || s.kind != "application/json" || s.body != want {
		w.t.Fatalf("%s %s answers %d %s %s, want %s", call, body, s.status, s.kind, s.body, want)
	}
	return s
}

// What writes are answered with.
const (
	registered   = `{"code":"ok","message":"instance registered"}`
	deregistered = `{"code":"ok","message":"instance deregistered"}`
	heartbeaten  = `{"code":"ok","message":"heartbeat accepted"}`
)

var times = regexp.MustCompile(`"(registeredAtUnix|lastHeartbeatUnix)":(\d+)`)

// timeless has @ in place of the times, once they are seen to be seconds of this test.
func (w *wire) timeless(text string) string {
	return times.ReplaceAllStringFunc(text, func(pair string) string {
		part := times.FindStringSubmatch(pair)
		at, err := strconv.ParseInt(part[2], 10, 64)
		if err != nil || at < w.began.Unix() || at > time.Now().Unix() {
			w.t.Errorf("%s is not of this test, which began at %d", pair, w.began.Unix())
		}
		return fmt.Sprintf(`"%s":@`, part[1])
	})
}

// v1Stream is a watch that is read as it comes.
type v1Stream struct {
	w     *wire
	lines *bufio.Reader
	close func()
}

// frameTime is longer than all of it takes.
const frameTime = 2 * time.Minute

// watch opens one. That it returns says that the header has come, whatever there is to tell.
func (w *wire) watch(m *member, query string, headers ...string) *v1Stream {
	w.t.Helper()
	s, err := w.open(m, query, headers...)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *wire) open(m *member, query string, headers ...string) (*v1Stream, error) {
	ctx, cancel := context.WithTimeout(w.cluster.t.Context(), frameTime)
	w.cluster.t.Cleanup(cancel)
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url()+v1Path+"watch?"+query, nil)
	if err != nil {
		return nil, err
	}
	q.Header.Set("Accept", "text/event-stream")
	for pair := range slices.Chunk(headers, 2) {
		q.Header.Set(pair[0], pair[1])
	}
	r, err := w.streams.Do(q)
	if err != nil {
		return nil, fmt.Errorf("a watch with %s gets no header: %w", query, err)
	}
	w.cluster.t.Cleanup(func() { r.Body.Close() })
	if r.StatusCode != http.StatusOK {
		text, err := io.ReadAll(r.Body)
		return nil, fmt.Errorf("a watch with %s answers %d %s (%v)", query, r.StatusCode, text, err)
	}
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"} {
		if got := r.Header.Get(name); got != want {
			return nil, fmt.Errorf("a watch with %s has %s: %q, want %q", query, name, got, want)
		}
	}
	return &v1Stream{w: w, lines: bufio.NewReader(r.Body), close: func() { r.Body.Close() }}, nil
}

// frame is the next one, with the empty line at its end.
func (s *v1Stream) frame(t *testing.T) string {
	t.Helper()
	var frame strings.Builder
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream breaks after %q: %v", frame.String()+line, err)
		}
		frame.WriteString(line)
		if line == "\n" {
			return s.w.timeless(frame.String())
		}
	}
}

func (s *v1Stream) mustBe(t *testing.T, want ...string) {
	t.Helper()
	for _, f := range want {
		if got := s.frame(t); got != f {
			t.Fatalf("the next frame is\n%swant\n%s", got, f)
		}
	}
}

// snapshot is the next frame, and its revision.
func (s *v1Stream) snapshot(t *testing.T, namespace, service string, instances ...string) uint64 {
	t.Helper()
	got := s.frame(t)
	id, _, _ := strings.Cut(strings.TrimPrefix(got, "id: "), "\n")
	at, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		t.Fatalf("the snapshot %q has no id: %v", got, err)
	}
	if want := v1SnapshotFrame(at, namespace, service, instances...); got != want {
		t.Fatalf("the snapshot is\n%swant\n%s", got, want)
	}
	return at
}

// The frames of the contract.
func v1SnapshotFrame(at uint64, namespace, service string, instances ...string) string {
	keys := fmt.Sprintf(`"revision":%d,"type":"snapshot","namespace":%q`, at, namespace)
	if service != "" {
		keys += fmt.Sprintf(`,"service":%q`, service)
	}
	if len(instances) > 0 {
		keys += `,"instances":[` + strings.Join(instances, ",") + `]`
	}
	return fmt.Sprintf("id: %d\nevent: snapshot\ndata: {%s}\n\n", at, keys)
}

func v1UpsertFrame(at uint64, ref, instance string) string {
	return fmt.Sprintf("id: %d\nevent: upsert\ndata: {\"revision\":%d,\"type\":\"upsert\",%s,\"instance\":%s}\n\n", at, at, ref, instance)
}

func v1DeleteFrame(at uint64, ref string) string {
	return fmt.Sprintf("id: %d\nevent: delete\ndata: {\"revision\":%d,\"type\":\"delete\",%s}\n\n", at, at, ref)
}

// v1Ref names an instance of a plain service, v1Plain is one as it is registered, and v1Shown as it is shown.
func v1Ref(namespace, service, id string) string {
	return fmt.Sprintf(`"namespace":%q,"service":%q,"instanceId":%q`, namespace, service, id)
}

func v1Plain(namespace, service, id string, port int) string {
	return fmt.Sprintf(`{%s,"endpoints":[{"protocol":"http","host":"10.0.0.1","port":%d}],"leaseTtlSeconds":3600}`, v1Ref(namespace, service, id), port)
}

func v1Shown(namespace, service, id string, port int) string {
	return fmt.Sprintf(`{%s,"endpoints":[{"name":"http","protocol":"http","host":"10.0.0.1","port":%d,"weight":100}],"leaseTtlSeconds":3600,"registeredAtUnix":@,"lastHeartbeatUnix":@}`,
		v1Ref(namespace, service, id), port)
}

// register registers a plain instance and gives the frame that says so.
func (w *wire) register(m *member, namespace, service, id string, port int) (frame string, at uint64) {
	w.t.Helper()
	at = w.write(m, "register", v1Plain(namespace, service, id, port), registered).revision
	return v1UpsertFrame(at, v1Ref(namespace, service, id), v1Shown(namespace, service, id, port)), at
}

func (w *wire) deregister(m *member, namespace, service, id string) (frame string, at uint64) {
	w.t.Helper()
	ref := v1Ref(namespace, service, id)
	at = w.write(m, "deregister", "{"+ref+"}", deregistered).revision
	return v1DeleteFrame(at, ref), at
}
