package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// served has a member served on a port, as it is in production but for the changes.
func (m *member) served(changes ...func(*http.Server)) *httptest.Server {
	m.tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.tb.Fatal(err)
	}
	s := &httptest.Server{Listener: listener, Config: NewServer(m.api.Handler(), nil)}
	for _, change := range changes {
		change(s.Config)
	}
	s.Start()
	m.tb.Cleanup(func() {
		m.api.EndWatches()
		s.Close()
	})
	return s
}

// A watchClient reads a stream as it comes, line by line, and knows nothing of how it was made.
type watchClient struct {
	tb     testing.TB
	header http.Header
	body   io.Closer
	lines  *bufio.Reader
	cancel context.CancelFunc
}

// clientTime is longer than anything here takes.
const clientTime = 20 * time.Second

// watch opens a stream. That it returns says that the header came.
func watch(tb testing.TB, s *httptest.Server, target string, headers ...string) *watchClient {
	tb.Helper()
	c := &watchClient{tb: tb}
	var ctx context.Context
	ctx, c.cancel = context.WithTimeout(context.Background(), clientTime)
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+target, nil)
	if err != nil {
		tb.Fatal(err)
	}
	q.Header.Set("Accept", "text/event-stream")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		q.Header.Set(name, value)
	}
	w, err := s.Client().Do(q)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.close)
	if c.header, c.body, c.lines = w.Header, w.Body, bufio.NewReader(w.Body); w.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(w.Body)
		tb.Fatalf("%s answers %d: %s", target, w.StatusCode, text)
	}
	return c
}

func (c *watchClient) close() {
	c.cancel()
	c.body.Close()
}

// frame is the next frame, without the empty line at its end; "" = the stream has ended.
func (c *watchClient) frame() string {
	c.tb.Helper()
	var frame strings.Builder
	for {
		line, err := c.lines.ReadString('\n')
		switch {
		case errors.Is(err, io.EOF) && frame.Len() == 0:
			return ""
		case err != nil:
			c.tb.Fatalf("the stream breaks after %q: %v", frame.String()+line, err)
		case line == "\n":
			return frame.String()
		}
		frame.WriteString(line)
	}
}

// mustBe compares the next frames.
func (c *watchClient) mustBe(want ...string) {
	c.tb.Helper()
	for _, w := range want {
		mustEqual(c.tb, "the next frame", c.frame(), w)
	}
}

const v1At = "/api/v1/registry/watch?namespace=prod"

func v1Of(id, host string) string {
	return fmt.Sprintf(`{"namespace":"prod","service":"orders","instanceId":%q,"endpoints":[{"name":"http","protocol":"http","host":%q,"port":8080,"weight":100}],"leaseTtlSeconds":30,"registeredAtUnix":1790000000,"lastHeartbeatUnix":1790000000}`, id, host)
}

func v1Snapshot(at int, service, instances string) string {
	if service != "" {
		service = fmt.Sprintf(`,"service":%q`, service)
	}
	if instances != "" {
		instances = `,"instances":[` + instances + `]`
	}
	return fmt.Sprintf("id: %d\nevent: snapshot\ndata: {\"revision\":%d,\"type\":\"snapshot\",\"namespace\":\"prod\"%s%s}\n", at, at, service, instances)
}

func v1Upsert(at int, id, host string) string {
	return fmt.Sprintf("id: %d\nevent: upsert\ndata: {\"revision\":%d,\"type\":\"upsert\",\"namespace\":\"prod\",\"service\":\"orders\",\"instanceId\":%q,\"instance\":%s}\n", at, at, id, v1Of(id, host))
}

func v1Delete(at int, id string) string {
	return fmt.Sprintf("id: %d\nevent: delete\ndata: {\"revision\":%d,\"type\":\"delete\",\"namespace\":\"prod\",\"service\":\"orders\",\"instanceId\":%q}\n", at, at, id)
}

// TestTheWatchOfV1 shows every frame and the rules of the start, byte for byte, as
// the contract of the SDKs has them.
func TestTheWatchOfV1(t *testing.T) {
	m := newMember(t, nil)
	s := m.served()
	empty := watch(t, s, v1At+"&service=orders&service=orders")
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no", "X-StellMap-Revision": "1"} {
		mustEqual(t, name, empty.header.Get(name), want)
	}
	empty.mustBe(v1Snapshot(1, "orders", ""))
	live := watch(t, s, v1At+"&service=orders&includeSnapshot=false") // its header is here, with nothing to tell

	m.register("orders", "a", "10.0.0.1", "") // revision 2
	for _, c := range []*watchClient{empty, live} {
		c.mustBe(v1Upsert(2, "a", "10.0.0.1"))
	}
	m.must(http.StatusOK, http.MethodPost, "/api/v2/namespaces/prod/services/orders/instances/a/renew", "", "X-StellMap-Lease-Token: lease-token-0001")
	m.register("orders", "b", "10.0.0.2", "") // 3
	m.must(http.StatusOK, http.MethodPost, "/api/v1/registry/deregister", `{"namespace":"prod","service":"orders","instanceId":"a"}`)
	for _, c := range []*watchClient{empty, live} { // of the heartbeat there was nothing
		c.mustBe(v1Upsert(3, "b", "10.0.0.2"), v1Delete(4, "a"))
	}
	watch(t, s, v1At+"&service=orders").mustBe(v1Snapshot(4, "orders", v1Of("b", "10.0.0.2")))
	watch(t, s, v1At+"&servicePrefix=ord&service=+").mustBe(v1Snapshot(4, "", v1Of("b", "10.0.0.2")))
	watch(t, s, v1At+"&service=orders&service=other&sinceRevision=0&includeSnapshot=1").mustBe(v1Snapshot(4, "", v1Of("b", "10.0.0.2")))
	for _, include := range []string{"", "&includeSnapshot=true", "&includeSnapshot=F"} {
		watch(t, s, v1At+"&sinceRevision=2"+include).mustBe(v1Upsert(3, "b", "10.0.0.2"), v1Delete(4, "a"))
	}
	level := watch(t, s, v1At+"&sinceRevision=4&includeSnapshot=false")
	watch(t, s, v1At+"&sinceRevision=5").mustBe(v1Snapshot(4, "", v1Of("b", "10.0.0.2")))
	watch(t, s, v1At+"&sinceRevision=9007199254740993&includeSnapshot=true").mustBe(v1Snapshot(4, "", v1Of("b", "10.0.0.2")))
	m.must(http.StatusOK, http.MethodPut, "/api/v2/namespaces/prod/services/orders/instances/b", `{"endpoints":[{"protocol":"http","host":"10.0.0.3","port":8080}]}`, "X-StellMap-Lease-Token: lease-token-0002")
	level.mustBe(v1Upsert(5, "b", "10.0.0.3"))
}

// TestAWatchOfV1KnowsTheRoutableOnly shows that what callers are not sent to is gone,
// and comes back as it does; and that several changes of one entry can be gone on from.
func TestAWatchOfV1KnowsTheRoutableOnly(t *testing.T) {
	m := newMember(t, nil)
	s := m.served()
	m.register("orders", "a", "10.0.0.1", "")
	c := watch(t, s, v1At+"&service=orders&includeSnapshot=false")
	zone := watch(t, s, v1At+"&service=orders&zone=z&includeSnapshot=false")
	override := "/api/v2/namespaces/prod/services/orders/instances/a/override"
	m.must(http.StatusOK, http.MethodPost, override, `{"status":"critical"}`)
	m.must(http.StatusOK, http.MethodPost, override, `{"status":"disabled"}`)
	m.must(http.StatusOK, http.MethodDelete, override, "")
	c.mustBe(v1Delete(3, "a"), v1Upsert(5, "a", "10.0.0.1"))

	m.must(http.StatusOK, http.MethodPost, "/api/v2/batch", `{"items":[
		{"register":{"namespace":"prod","service":"orders","instanceId":"b","endpoints":[{"protocol":"http","host":"10.0.0.2","port":8080}]}},
		{"register":{"namespace":"prod","service":"orders","instanceId":"c","zone":"z","endpoints":[{"protocol":"http","host":"10.0.0.3","port":8080}]}},
		{"register":{"namespace":"prod","service":"orders","instanceId":"d","endpoints":[{"protocol":"http","host":"10.0.0.4","port":8080}]}}]}`)
	first, second, third := c.frame(), c.frame(), c.frame()
	mustEqual(t, "the first of three of revision 6", first, v1Upsert(5, "b", "10.0.0.2"))
	mustEqual(t, "the second", strings.HasPrefix(second, "id: 5\nevent: upsert\ndata: {\"revision\":5,"), true)
	mustEqual(t, "the last", third, v1Upsert(6, "d", "10.0.0.4"))
	mustEqual(t, "the only one for another watcher", strings.HasPrefix(zone.frame(), "id: 6\nevent: upsert\ndata: {\"revision\":6,"), true)
	again := watch(t, s, v1At+"&service=orders&sinceRevision=5&includeSnapshot=false") // after the first or the second
	again.mustBe(first, second, third)
}

// TestWhatAWatchOfV1Refuses shows the errors before a stream.
func TestWhatAWatchOfV1Refuses(t *testing.T) {
	m := newMember(t, nil)
	m.register("orders", "a", "10.0.0.1", "")
	for query, want := range map[string]string{
		"":                                     `400 {"code":"bad_request","message":"namespace: is missing`,
		"namespace=prod&sinceRevision=x":       `400 {"code":"bad_request","message":"sinceRevision: \"x\" is not a revision`,
		"namespace=prod&sinceRevision=-1":      `400 {"code":"bad_request","message":"sinceRevision: \"-1\" is not a revision`,
		"namespace=prod&includeSnapshot=maybe": `400 {"code":"bad_request","message":"includeSnapshot: \"maybe\" is neither true nor false"`,
		"namespace=prod&role=api":              `400 {"code":"bad_request","message":"role: `,
		"namespace=prod&sinceRevision=7&includeSnapshot=false": `410 {"code":"revision_expired","message":"not all that came after`,
	} {
		w := m.call(http.MethodGet, "/api/v1/registry/watch?"+query, "")
		if got := fmt.Sprintf("%d %s", w.Code, w.Body); !strings.HasPrefix(got, want) {
			t.Errorf("a watch with %s answers %s, want %s", query, got, want)
		}
	}
	m.set(func() { m.log.Fault = faults["no-leader"] })
	w := m.call(http.MethodGet, v1At, "")
	mustEqual(t, "the status without a leader", w.Code, http.StatusServiceUnavailable)
	mustEqual(t, "the body without a leader", strings.HasPrefix(w.Body.String(), `{"code":"not_leader"`), true)
	w = m.call(http.MethodHead, v1At+"&sinceRevision=2", "")
	mustEqual(t, "the type that HEAD tells", w.Header().Get("Content-Type"), "text/event-stream")
}

// TestAStreamLivesLongerThanACall shows that the bounds of calls end no stream, that it
// is kept alive, and that a member that stops ends it.
func TestAStreamLivesLongerThanACall(t *testing.T) {
	m := newMember(t, nil)
	m.api.limits.keepalive, m.api.limits.timeout = 10*time.Millisecond, time.Second
	const deadline = time.Second // for the requests, too, however busy the machine
	s := m.served(func(s *http.Server) { s.ReadTimeout, s.WriteTimeout = deadline, deadline })
	v1, v2 := watch(t, s, v1At+"&includeSnapshot=false"), watch(t, s, "/api/v2/watch?snapshot=false&namespace=prod")
	for range 2 * deadline / m.api.limits.keepalive {
		v1.mustBe(": keepalive\n")
		v2.mustBe("id: cafe:1\nevent: progress\ndata: {\"revision\":1,\"type\":\"progress\"}\n")
	}
	m.api.EndWatches()
	for _, c := range []*watchClient{v1, v2} {
		for frame := c.frame(); frame != ""; frame = c.frame() {
		}
	}
	if w := m.call(http.MethodGet, "/api/v2/watch?wait=1s&revision=1", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("a poll at a member that stops answers %d: %s", w.Code, w.Body)
	}
}

// smallBuffers has sockets hold little, so that little makes one that does not read full.
func smallBuffers(tb testing.TB) func(*http.Server) {
	return func(s *http.Server) {
		s.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
			if err := conn.(*net.TCPConn).SetWriteBuffer(64 << 10); err != nil {
				tb.Error(err)
			}
			return ctx
		}
	}
}

// dialSlow asks for something and reads nothing of it.
func dialSlow(tb testing.TB, s *httptest.Server, target string) net.Conn {
	tb.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	if err := errors.Join(conn.SetDeadline(time.Now().Add(clientTime)), conn.(*net.TCPConn).SetReadBuffer(64<<10)); err != nil {
		tb.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", target)
	return conn
}

// TestOneThatTakesNothingIsCut shows that a client which does not read is cut when a
// frame has not been taken in time, and nobody else is.
func TestOneThatTakesNothingIsCut(t *testing.T) {
	m := newMember(t, nil)
	m.api.limits.watchStall = time.Second
	s := m.served(smallBuffers(t))
	dialSlow(t, s, "/api/v2/watch")
	reads := watch(t, s, "/api/v2/watch?snapshot=false")
	label := strings.Repeat("x", 3000)
	for n := 0; m.sample(`stellmap_http_watches_ended_total{reason="stuck"}`) == 0; n++ {
		if n > 20_000 {
			t.Fatal("it is not cut")
		}
		m.register("orders", fmt.Sprint("a", n), "10.0.0.1", fmt.Sprintf(`,"metadata":{"a":%q,"b":%q,"c":%q}`, label, label, label))
		if frame := reads.frame(); !strings.Contains(frame, fmt.Sprintf(`"instanceId":"a%d"`, n)) {
			t.Fatalf("one that reads is told %s", frame)
		}
	}
}

// TestOneThatFallsBehindTheHistory shows what a client is told that was slow for so long
// that what came meanwhile is not kept any more: v2 all there is, in its stream; v1,
// which has no word for that, the end of its stream, be it one with a snapshot or not.
func TestOneThatFallsBehindTheHistory(t *testing.T) {
	m := newMemberOn(t, registry.MachineConfig{EventsMax: 16, History: registry.HistoryBounds{Events: 16}}, nil)
	s := m.served(smallBuffers(t))
	slow := make(map[string]*bufio.Reader)
	for _, target := range []string{v1At, v1At + "&includeSnapshot=false", "/api/v2/watch"} {
		slow[target] = bufio.NewReader(dialSlow(t, s, target))
		if line, err := slow[target].ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
			t.Fatalf("%s is answered %q, %v", target, line, err)
		}
	}
	const changes = 200 // of 9 kB: more than such sockets hold, and the history
	label := strings.Repeat("x", 3000)
	for n := range changes {
		m.must(http.StatusOK, http.MethodPost, "/api/v1/registry/register", fmt.Sprintf(
			`{"namespace":"prod","service":"orders","instanceId":"a","endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}],"metadata":{"a":%q,"b":%q,"c":%q,"n":"%d"}}`, label, label, label, n))
	}
	newest := fmt.Sprintf(`"n":"%d"`, changes-1)
	for _, target := range []string{v1At, v1At + "&includeSnapshot=false"} {
		told, err := io.ReadAll(slow[target])
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(told), "event: snapshot\n") > 1 || strings.Contains(string(told), newest) {
			t.Errorf("%s is not ended: %d bytes", target, len(told))
		}
	}
	mustEqual(t, "the streams that fell behind", m.sample(`stellmap_http_watches_ended_total{reason="fell_behind"}`), 2)
	for compacted := false; ; {
		line, err := slow["/api/v2/watch"].ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if compacted = compacted || strings.Contains(line, `"reason":"compacted"`); compacted && strings.Contains(line, newest) {
			break
		}
	}
}

// sample is a metric's value.
func (m *member) sample(name string) int {
	m.tb.Helper()
	for line := range strings.Lines(m.call(http.MethodGet, "/metrics", "").Body.String()) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			var n float64
			fmt.Sscan(value, &n)
			return int(n)
		}
	}
	return 0
}

// TestWatchesAreEncodedOnce shows that a change is encoded once for all streams that
// want it, in each form, and that the streams are bounded.
func TestWatchesAreEncodedOnce(t *testing.T) {
	m := newMember(t, nil)
	s := m.served()
	m.api.limits.watches = 60
	var v1, v2 []*watchClient
	for range 30 {
		v1 = append(v1, watch(t, s, v1At+"&includeSnapshot=false"))
		v2 = append(v2, watch(t, s, "/api/v2/watch?snapshot=false&namespace=prod"))
	}
	w := m.call(http.MethodGet, v1At, "")
	mustEqual(t, "what one too many is answered", fmt.Sprint(w.Code, w.Header().Get("Retry-After")), "4291")
	for n := range 5 {
		m.register("orders", fmt.Sprint("a", n), "10.0.0.1", "")
		for i := range v1 {
			v1[i].mustBe(v1Upsert(n+2, fmt.Sprint("a", n), "10.0.0.1"))
			v2[i].frame()
		}
		mustEqual(t, "the frames encoded", m.sample("stellmap_http_watch_frames_encoded_total"), 2*(n+1))
		mustEqual(t, "the frames sent", m.sample(`stellmap_http_watch_frames_sent_total{shared="true"}`), 60*(n+1))
	}
	mustEqual(t, "the streams open", m.sample("stellmap_http_watches"), 60)
	mustEqual(t, "the slots of calls", m.api.inflight.Load(), int64(0))
}

// TestFramesAreBounded shows that the oldest go, and are encoded again for who wants them.
func TestFramesAreBounded(t *testing.T) {
	encoded := 0
	f := newFrames(func() { encoded++ })
	get := func(n int) { f.of(frameKey{order: n}, func() []byte { return make([]byte, framesBytesMax/4) }) }
	for n := range 10 {
		get(n)
		get(n)
	}
	mustEqual(t, "the number encoded", encoded, 10)
	mustEqual(t, "the bytes kept", f.bytes, framesBytesMax)
	mustEqual(t, "the frames kept", len(f.byKey)+len(f.order), 8)
	get(9)
	get(0)
	mustEqual(t, "the number encoded in the end", encoded, 11)
}

// TestTheWatchOfV2 shows every frame, how a stream is gone on with, and what a member
// tells that cannot.
func TestTheWatchOfV2(t *testing.T) {
	m := newMember(t, nil)
	s := m.served()
	at := "/api/v2/watch?namespace=prod&service=orders"
	instance := func(id, host string, more string) string {
		return fmt.Sprintf(`{"namespace":"prod","service":"orders","instanceId":%q,"region":"here","endpoints":[{"name":"http","protocol":"http","host":%q,"port":8080,"weight":100}],"leaseTtlSeconds":30,"registeredAt":"2026-09-21T14:13:20.123Z","lastHeartbeatAt":"2026-09-21T14:13:20.123Z","status":"passing","statusSince":"2026-09-21T14:13:20.123Z",%s}`, id, host, more)
	}
	c := watch(t, s, at)
	c.mustBe("id: cafe:1\nevent: snapshot\ndata: {\"revision\":1,\"type\":\"snapshot\",\"reason\":\"start\",\"instances\":[]}\n")
	m.register("orders", "a", "10.0.0.1", "")
	m.register("other", "a", "10.0.0.1", "")
	m.must(http.StatusOK, http.MethodPost, "/api/v1/registry/deregister", `{"namespace":"prod","service":"orders","instanceId":"a"}`)
	put := "id: cafe:2\nevent: upsert\ndata: {\"revision\":2,\"type\":\"upsert\",\"created\":true,\"namespace\":\"prod\",\"service\":\"orders\",\"instanceId\":\"a\",\"instance\":" + instance("a", "10.0.0.1", `"revision":2,"counter":1`) + "}\n"
	gone := "id: cafe:4\nevent: delete\ndata: {\"revision\":4,\"type\":\"delete\",\"namespace\":\"prod\",\"service\":\"orders\",\"instanceId\":\"a\"}\n"
	c.mustBe(put, gone)
	for name, again := range map[string]*watchClient{
		"a revision": watch(t, s, at+"&revision=1"), "an id": watch(t, s, at+"&revision=cafe:1"), "a header": watch(t, s, at+"&revision=4", "Last-Event-ID: cafe:1"),
	} {
		t.Log(name)
		again.mustBe(put, gone)
	}
	all := "data: {\"revision\":4,\"type\":\"snapshot\",\"reason\":\"unknown_revision\",\"instances\":[" + instance("a", "10.0.0.1", `"revision":3,"counter":1`)
	for _, q := range []string{"revision=beef:3", "revision=5", "revision=1099511627777"} {
		frame := watch(t, s, "/api/v2/watch?"+q).frame()
		mustEqual(t, "what is told after "+q, strings.HasPrefix(strings.ReplaceAll(frame, "other", "orders"), "id: cafe:4\nevent: snapshot\n"+all), true)
	}
	named := watch(t, s, "/api/v2/watch?endpoint=web&revision=4")
	m.must(http.StatusCreated, http.MethodPut, "/api/v2/namespaces/prod/services/orders/instances/b", `{"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80},{"name":"web","protocol":"http","host":"10.0.0.1","port":81}]}`)
	mustEqual(t, "the endpoints that were asked for", strings.Contains(named.frame(), `"endpoints":[{"name":"web",`), true)
	mustEqual(t, "the frames that are not shared", m.sample(`stellmap_http_watch_frames_sent_total{shared="false"}`), 1)
}

// TestAPoll shows what it waits for, and that it is answered with a newer revision
// when there is nothing.
func TestAPoll(t *testing.T) {
	m := newMember(t, nil)
	s := m.served()
	poll := func(query string) string {
		w, err := s.Client().Get(s.URL + "/api/v2/watch?namespace=prod&service=orders&" + query)
		if err != nil {
			t.Error(err)
			return ""
		}
		defer w.Body.Close()
		body, err := io.ReadAll(w.Body)
		if err != nil {
			t.Error(err)
		}
		return fmt.Sprintf("%d %s %s", w.StatusCode, w.Header.Get("X-StellMap-Revision"), body)
	}
	mustEqual(t, "the first", poll("wait=20s"), `200 1 {"revision":1,"resume":"cafe:1","type":"snapshot","reason":"start","instances":[]}`)
	m.register("other", "a", "10.0.0.1", "")
	mustEqual(t, "one with nothing for it", poll("wait=1ms&revision=1"), `200 2 {"revision":2,"resume":"cafe:2","type":"changes","changes":[]}`)
	answered := make(chan string)
	go func() { answered <- poll("wait=20s&revision=cafe:2") }()
	for m.api.watches.Load() == 0 { // until it is there
		runtime.Gosched()
	}
	m.register("orders", "a", "10.0.0.1", "")
	got := <-answered
	mustEqual(t, "that it is told of the first change: "+got, strings.Contains(got, `"type":"changes","changes":[{"revision":3,"type":"upsert","created":true,"namespace":"prod","service":"orders","instanceId":"a","instance":{`), true)

	m.set(func() { m.log.Fault = faults["no-leader"] })
	mustEqual(t, "that a known revision needs no leader", strings.HasPrefix(poll("wait=0s&revision=2"), "200 "), true)
	mustEqual(t, "that all there is does", strings.HasPrefix(poll("wait=0s"), "503 "), true)
	mustEqual(t, "that it may be stale", strings.HasPrefix(poll("wait=0s&consistency=stale"), "200 "), true)
}

// TestWhatAWatchOfV2Refuses shows that a mistake is named, and does not watch something else.
func TestWhatAWatchOfV2Refuses(t *testing.T) {
	m := newMember(t, nil)
	for query, want := range map[string]string{
		"revision=x":          `{"field":"revision","reason":"\"x\" is not a revision, nor the id of an event`,
		"revision=cafe:-1":    `{"field":"revision"`,
		"wait=6m":             `{"field":"wait","reason":"\"6m\" is not a time from 0s to 5m0s, such as 10s"}`,
		"snapshot=maybe":      `{"field":"snapshot"`,
		"limit=3":             `{"field":"limit","reason":"is not known here: the parameters are namespace, service,`,
		"status=none":         `{"field":"status"`,
		"selector=a+in":       `{"field":"selector"`,
		"wait=1s&wait=2s":     `{"field":"wait","reason":"is given 2 times: once"}`,
		"namespace=a.b":       `{"field":"namespace"`,
		"consistency=strange": `{"field":"consistency"`,
	} {
		if w := m.call(http.MethodGet, "/api/v2/watch?"+query, ""); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), want) {
			t.Errorf("a watch with %s answers %d %s, want %s", query, w.Code, w.Body, want)
		}
	}
	m.set(func() { m.status.Incarnation = "" }) // the first leader has not chosen it: what is told now could not be gone on with
	for _, query := range []string{"", "revision=cafe:1", "wait=0s"} {
		if w := m.call(http.MethodGet, "/api/v2/watch?"+query, ""); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"code":"no_leader"`) {
			t.Errorf("a watch with %s at a member that does not know its cluster answers %d %s", query, w.Code, w.Body)
		}
	}
	if w := m.call(http.MethodGet, "/api/v2/watch", "", "Last-Event-ID: x y"); !strings.Contains(w.Body.String(), `"field":"Last-Event-ID"`) {
		t.Errorf("a wrong id in the header answers %d %s", w.Code, w.Body)
	}
}

// TestAChangeWakesItsWatchesOnly counts who is woken by a change, streams of both surfaces
// and polls: those who watch its service, and nobody else.
func TestAChangeWakesItsWatchesOnly(t *testing.T) {
	m := newMember(t, nil)
	s := m.served()
	var of []*watchClient
	answered := make(chan string)
	for n := range 40 {
		service := "orders"
		if n%4 != 0 {
			service = fmt.Sprint("other-", n)
		}
		for _, target := range []string{v1At + "&includeSnapshot=false", "/api/v2/watch?namespace=prod&snapshot=false"} {
			if c := watch(t, s, target+"&service="+service); n%4 == 0 {
				of = append(of, c)
			}
		}
		go func() {
			w, err := s.Client().Get(s.URL + "/api/v2/watch?namespace=prod&wait=5m&revision=1&service=" + service)
			if err != nil {
				return // the test is over
			}
			defer w.Body.Close()
			answered <- service
		}()
	}
	for deadline := time.Now().Add(clientTime); m.sample("stellmap_registry_watchers") < 120; {
		if runtime.Gosched(); time.Now().After(deadline) {
			t.Fatal("not all wait")
		}
	}
	m.register("orders", "a", "10.0.0.1", "")
	for range 10 {
		mustEqual(t, "whose poll is answered", <-answered, "orders")
	}
	for _, c := range of {
		mustEqual(t, "that a stream is told", strings.Contains(c.frame(), `"instanceId":"a"`), true)
	}
	mustEqual(t, "how many were woken", m.sample("stellmap_registry_watchers_woken_total"), 30)
	m.api.EndWatches() // the polls of the others
	for range 30 {
		<-answered
	}
}

// TestAnAddressWithTooManyWatchesIsRefused shows what the watch above the bound of its
// address is answered, in both surfaces, and that no other address is.
func TestAnAddressWithTooManyWatchesIsRefused(t *testing.T) {
	m := newMember(t, nil)
	for range registry.WatchesPerAddress {
		if _, err := m.config.Registry.WatchPlace(netip.MustParseAddr("10.1.0.1")); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{v1At, "/api/v2/watch?wait=0s"} {
		w := m.must(http.StatusTooManyRequests, http.MethodGet, target, "", "From-Address: 10.1.0.1:4711")
		mustEqual(t, "that it is named: "+w.Body.String(), strings.Contains(w.Body.String(), `"code":"too_many_watches"`), true)
	}
	for range 2 { // whose place is given back
		m.must(http.StatusOK, http.MethodGet, "/api/v2/watch?wait=0s", "", "From-Address: 10.1.0.2:4711")
	}
	mustEqual(t, "how many were refused", m.sample("stellmap_registry_watches_refused_total"), 2)
}
