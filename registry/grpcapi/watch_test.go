package grpcapi

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

// A watcher is a client's watch.
type watcher struct {
	tb     testing.TB
	stream grpc.ServerStreamingClient[stellmapv1.WatchResponse]
	resume string // of the last response that had one
}

func (m *member) watch(ctx context.Context, ask *stellmapv1.WatchRequest) *watcher {
	m.tb.Helper()
	stream, err := m.client.Watch(ctx, ask)
	if err != nil {
		m.tb.Fatal(err)
	}
	return &watcher{tb: m.tb, stream: stream}
}

// next is the next response that is no mark of progress, in short.
func (w *watcher) next() string {
	w.tb.Helper()
	for {
		m, err := w.stream.Recv()
		if err != nil {
			return shownError(err)
		}
		if m.GetResume() != "" {
			w.resume = m.GetResume()
		}
		var out []string
		if m.GetResync() != 0 {
			out = append(out, m.GetResync().String()+":")
		}
		for _, i := range m.GetInstances() {
			out = append(out, i.GetInstanceId())
		}
		for _, c := range m.GetChanges() {
			out = append(out, fmt.Sprintf("%s %s@%d", strings.TrimPrefix(c.GetKind().String(), "CHANGE_KIND_"), c.GetInstance().GetInstanceId(), c.GetRevision()))
		}
		if m.GetPartial() {
			out = append(out, "...")
		}
		if (m.GetResume() == "") != m.GetPartial() {
			w.tb.Fatalf("a response that is partial=%v has the resume %q", m.GetPartial(), m.GetResume())
		}
		if len(out) > 0 {
			return strings.Join(out, " ")
		}
	}
}

func (w *watcher) mustTell(want string) {
	w.tb.Helper()
	mustEqual(w.tb, "what is told", w.next(), want)
}

func orders() *stellmapv1.Filter {
	return &stellmapv1.Filter{Namespace: "prod", Services: []string{"orders"}}
}

func (m *member) deregister(service, id, token string) {
	m.tb.Helper()
	if _, err := m.client.Deregister(m.tb.Context(), &stellmapv1.DeregisterRequest{Namespace: "prod", Service: service, InstanceId: id, LeaseToken: token}); err != nil {
		m.tb.Fatal(err)
	}
}

// TestAWatchTellsAllThereIsAndThenTheChanges shows what is told, of what matches only,
// and that a watch goes on from where it was.
func TestAWatchTellsAllThereIsAndThenTheChanges(t *testing.T) {
	m := newMember(t, nil)
	a := m.register("orders", "a").GetLeaseToken() // revision 2
	m.register("pay", "p")                         // 3
	w := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders()})
	w.mustTell("RESYNC_START: a")
	began := w.resume
	m.register("orders", "b") // 4
	w.mustTell("CREATED b@4")
	changed := registration("orders", "a")
	changed.LeaseToken, changed.Version = a, "2"
	if _, err := m.client.Register(t.Context(), changed); err != nil { // 5
		t.Fatal(err)
	}
	w.mustTell("CHANGED a@5")
	m.register("pay", "q")         // 6
	m.deregister("orders", "a", a) // 7
	w.mustTell("GONE a@7")

	again := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders(), Resume: began})
	again.mustTell("CREATED b@4 CHANGED a@5 GONE a@7")
	m.register("orders", "c") // 8
	for _, one := range []*watcher{w, again} {
		one.mustTell("CREATED c@8")
	}
	live := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders(), Live: true})
	if _, err := live.stream.Header(); err != nil { // comes once the watch is there
		t.Fatal(err)
	}
	m.register("orders", "d") // 9
	live.mustTell("CREATED d@9")
}

// TestAWatchSaysHowFarItHasCome shows marks of progress, from which it goes on as well.
func TestAWatchSaysHowFarItHasCome(t *testing.T) {
	m := newMember(t, func(a *API) { a.limits.progress = time.Millisecond })
	w := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders()})
	at := m.register("pay", "p").GetRevision()
	for {
		told, err := w.stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if told.GetResync() == 0 && len(told.GetChanges()) > 0 {
			t.Fatalf("it was told of another service: %v", told)
		}
		if told.GetResync() == 0 && told.GetRevision() >= at {
			w.resume = told.GetResume()
			break
		}
	}
	m.register("orders", "a")
	m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders(), Resume: w.resume}).mustTell("CREATED a@3")
}

// TestAWatchThatGoesOnSaysAtOnceThatItIsLevel shows that nobody has to wait for the
// first mark of progress to know that he has missed nothing.
func TestAWatchThatGoesOnSaysAtOnceThatItIsLevel(t *testing.T) {
	m := newMember(t, func(a *API) { a.limits.progress = time.Hour })
	m.register("orders", "a")
	w := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders()})
	w.mustTell("RESYNC_START: a")
	at := m.register("pay", "p").GetRevision()
	again := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders(), Resume: w.resume})
	told, err := again.stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "the changes that are told", len(told.GetChanges()), 0)
	mustEqual(t, "up to which revision", told.GetRevision(), at)
}

// TestAWatchOfAnotherClusterBeginsAnew shows that revisions of another incarnation,
// or from beyond the log, are not taken for ours.
func TestAWatchOfAnotherClusterBeginsAnew(t *testing.T) {
	m := newMember(t, nil)
	m.register("orders", "a")
	w := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders()})
	w.mustTell("RESYNC_START: a")
	m.set(func() { m.home.Incarnation = "beef" })
	m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders(), Resume: w.resume}).mustTell("RESYNC_UNKNOWN_REVISION: a")
	ahead := (&watch{of: "beef"}).resumeAt(1 << 40)
	m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders(), Resume: ahead}).mustTell("RESYNC_UNKNOWN_REVISION: a")
}

// TestAMemberThatDoesNotKnowItsClusterTellsNothing shows that resume points are neither
// given nor refused while nobody knows of which cluster they are.
func TestAMemberThatDoesNotKnowItsClusterTellsNothing(t *testing.T) {
	m := newMember(t, nil)
	m.register("orders", "a")
	w := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders()})
	w.mustTell("RESYNC_START: a")
	m.set(func() { m.home.Incarnation = "" })
	for _, resume := range []string{"", w.resume} {
		_, err := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders(), Resume: resume}).stream.Recv()
		mustFail(t, "a watch of nobody knows what", err, codes.Unavailable, "NO_LEADER")
	}
	m.set(func() { m.home.Incarnation = "cafe" })
	m.register("orders", "b")
	m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders(), Resume: w.resume}).mustTell("CREATED b@3")
}

// TestAWatchIsToldInParts shows that no message grows with what there is or has changed.
func TestAWatchIsToldInParts(t *testing.T) {
	m := newMember(t, func(a *API) { a.limits.partBytes = 1 })
	m.register("orders", "a")
	m.register("orders", "b")
	w := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders()})
	w.mustTell("RESYNC_START: a ...")
	w.mustTell("RESYNC_START: b")
	m.register("orders", "c")
	m.register("orders", "d")
	again := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders(), Resume: w.resume})
	again.mustTell("CREATED c@4 ...")
	again.mustTell("CREATED d@5")
}

// TestWatchesShareAnEncoding shows that a change is encoded once for all who see it whole.
func TestWatchesShareAnEncoding(t *testing.T) {
	m := newMember(t, nil)
	var all []*watcher
	for range 50 {
		all = append(all, m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders(), Live: true}))
	}
	for _, w := range all {
		if _, err := w.stream.Header(); err != nil {
			t.Fatal(err)
		}
	}
	m.register("orders", "a")
	for _, w := range all {
		w.mustTell("CREATED a@2")
	}
	mustEqual(t, "how often it was encoded", m.metric("stellmap_grpc_watch_changes_encoded_total", ""), 1)
	mustEqual(t, "how often it was told", m.metric("stellmap_grpc_watch_changes_told_total", ""), 50)
}

// TestEncodingsAreBounded shows that the oldest go, and that none is kept of what one
// watch sees alone.
func TestEncodingsAreBounded(t *testing.T) {
	m := newMember(t, nil)
	e := &m.api.shared
	i := &registry.Instance{Origin: &registry.Origin{Namespace: "prod", Service: "orders"}, ID: "a", Status: registry.StatusPassing}
	for n := range encodingsMax + 10 {
		e.of(&registry.Change{Revision: registry.Revision(n), Instance: i})
	}
	e.of(&registry.Change{Revision: 1 << 30, Narrowed: true, Instance: i})
	mustEqual(t, "how many are kept", len(e.kept), encodingsMax)
	if _, kept := e.kept[encodingKey{revision: 9}]; kept {
		t.Error("the oldest is still kept")
	}
	big := &registry.Instance{Origin: &registry.Origin{Service: "orders"}, ID: strings.Repeat("x", encodingsBytesMax/4)}
	for n := range 10 {
		e.of(&registry.Change{Revision: registry.Revision(1<<20 + n), Instance: big})
	}
	if e.bytes > encodingsBytesMax || len(e.kept) != len(e.age) {
		t.Errorf("%d bytes in %d encodings are kept", e.bytes, len(e.kept))
	}
}

// TestASlowWatchIsCutOff shows that who does not read is cut off and told why, holds
// up nobody, and loses nothing.
func TestASlowWatchIsCutOff(t *testing.T) {
	m := newMember(t, func(a *API) { a.limits.send = 200 * time.Millisecond })
	slow := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders()})
	slow.mustTell("RESYNC_START:")
	const changes = 60
	fat := registration("orders", "")
	fat.Metadata = []*stellmapv1.Pair{{Key: "much", Value: strings.Repeat("x", 15<<10)}}
	for n := range changes {
		fat.InstanceId = fmt.Sprint("i", n)
		if _, err := m.client.Register(t.Context(), fat); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "it to be cut off", func() bool { return m.api.watches.Load() == 0 })
	told, last := 0, ""
	for last = slow.next(); strings.HasPrefix(last, "CREATED"); last = slow.next() {
		told += strings.Count(last, "CREATED")
	}
	if !strings.HasPrefix(last, "DeadlineExceeded") || !strings.Contains(last, `"reason":"SLOW"`) {
		t.Fatalf("it ended with %s", last)
	}
	again := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: orders(), Resume: slow.resume})
	for told < changes {
		told += strings.Count(again.next(), "CREATED")
	}
	mustEqual(t, "how many changes it was told of in all", told, changes)
}

// TestWatchesAreBoundedAndEnd shows that the one above the bound is refused, what is
// wrong with a request, and that all end when the member stops.
func TestWatchesAreBoundedAndEnd(t *testing.T) {
	m := newMember(t, func(a *API) { a.limits.watches = 1 })
	refused := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: &stellmapv1.Filter{Selectors: []string{"a in b"}}, Resume: "nonsense"})
	_, err := refused.stream.Recv()
	mustFail(t, "a wrong request", err, codes.InvalidArgument, "BAD_REQUEST")
	for _, field := range []string{`"field":"filter.selectors"`, `"field":"resume"`} {
		if !strings.Contains(shownError(err), field) {
			t.Errorf("%s is not in %s", field, shownError(err))
		}
	}
	until(t, "it to be gone", func() bool { return m.api.watches.Load() == 0 })
	first := m.watch(t.Context(), &stellmapv1.WatchRequest{})
	first.mustTell("RESYNC_START:")
	_, err = m.watch(t.Context(), &stellmapv1.WatchRequest{}).stream.Recv()
	mustFail(t, "a second watch", err, codes.ResourceExhausted, "BUSY")
	m.stop()
	_, err = first.stream.Recv()
	mustFail(t, "a watch of a member that stops", err, codes.Unavailable, "STOPPING")
}

// TestResyncsAreTheRegistrys shows that why all there is is told has its number in messages, too.
func TestResyncsAreTheRegistrys(t *testing.T) {
	for number, name := range stellmapv1.Resync_name {
		if number > 0 {
			mustEqual(t, "the name of resync "+name, "RESYNC_"+strings.ToUpper(registry.Resync(number).String()), name)
		}
	}
	_, told := stellmapv1.Resync_name[int32(registry.ResyncSelection)]
	mustEqual(t, "whether that of replicas alone is told", told, false)
	mustEqual(t, "the one after the last", (registry.ResyncAccess + 1).String(), "none")
	mustEqual(t, "how many there are", len(stellmapv1.Resync_name), int(registry.ResyncAccess))
}

// TestAChangeWakesItsWatchesOnly counts who is woken by a change: those who watch its
// service, and nobody else.
func TestAChangeWakesItsWatchesOnly(t *testing.T) {
	m := newMember(t, nil)
	var of []*watcher
	for n := range 40 {
		filter := orders()
		if n%4 != 0 {
			filter.Services = []string{fmt.Sprint("other-", n)}
		}
		w := m.watch(t.Context(), &stellmapv1.WatchRequest{Filter: filter})
		if w.mustTell("RESYNC_START:"); n%4 == 0 {
			of = append(of, w)
		}
	}
	for n := range 5 {
		until(t, "all to wait", func() bool { return m.metric("stellmap_registry_watchers", "") == 40 })
		m.register("orders", fmt.Sprint("a", n))
		for _, w := range of {
			w.mustTell(fmt.Sprintf("CREATED a%d@%d", n, n+2))
		}
		mustEqual(t, "how many were woken", m.metric("stellmap_registry_watchers_woken_total", ""), float64(10*(n+1)))
	}
}

// A streamFrom is the server's end of a watch that comes from an address.
type streamFrom struct {
	grpc.ServerStreamingServer[stellmapv1.WatchResponse]
	ctx context.Context
}

func (s streamFrom) Context() context.Context { return s.ctx }

// TestAnAddressWithTooManyWatchesIsRefused shows what the watch above the bound of its
// address is answered.
func TestAnAddressWithTooManyWatchesIsRefused(t *testing.T) {
	m := newMember(t, nil)
	for range registry.WatchesPerAddress {
		if _, err := m.api.registry.WatchPlace(netip.MustParseAddr("10.1.0.1")); err != nil {
			t.Fatal(err)
		}
	}
	from := peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(10, 1, 0, 1), Port: 4711}})
	err := (&service{api: m.api}).Watch(&stellmapv1.WatchRequest{Filter: orders()}, streamFrom{ctx: from})
	mustFail(t, "one watch too many", err, codes.ResourceExhausted, "TOO_MANY_WATCHES")
	mustEqual(t, "the watches open", m.api.watches.Load(), 0)
}
