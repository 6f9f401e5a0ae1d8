package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Bounds of watchers.
const (
	watchAway = time.Second           // at another member; then its own is tried again
	watchRest = 50 * time.Millisecond // after a stream that ended
	beatRest  = 10 * time.Millisecond // between two changes of what is watched
	beatPorts = 60_000
)

// watchers are clients of ADS, each at home at one member. A service has an instance that stays, and one whose port
// counts up. When its stream ends a watcher goes on elsewhere from what it has, as Envoy does, and back when it may.
// Whatever becomes of the members, it is never told less than it knew: not an earlier port, nor that the one that
// stays is not there; and in the end it knows the last.
type watchers struct {
	t     *testing.T
	addrs []string // of the xDS ports
	all   []*watcher

	mu    sync.Mutex        // guards what follows
	acked map[int]time.Time // port → when it was acknowledged
	last  int
}

// watcher is one of them. Its fields are its goroutine's, but for the last two.
type watcher struct {
	of      *watchers
	home    int
	version string // of what it has
	streams int
	lag     time.Duration // from the acknowledgement of a change, at most

	mu   sync.Mutex // guards what follows
	port int        // that it was told last
}

const beatService, stays = "beat", 1

// startWatchers starts one for each address. They end with ctx.
func startWatchers(ctx context.Context, t *testing.T, running *sync.WaitGroup, addrs []string) *watchers {
	ws := &watchers{t: t, addrs: addrs, acked: make(map[int]time.Time)}
	for i := range addrs {
		w := &watcher{of: ws, home: i}
		ws.all = append(ws.all, w)
		running.Go(func() { w.run(ctx) })
	}
	return ws
}

// ack notes that a change is acknowledged.
func (ws *watchers) ack(port int) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.acked[port], ws.last = time.Now(), port
}

func (ws *watchers) since(port int) time.Duration {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	at, acked := ws.acked[port]
	if !acked { // it came before the acknowledgement
		return 0
	}
	return time.Since(at)
}

// behind is an error while one does not know the last change.
func (ws *watchers) behind() error {
	ws.mu.Lock()
	last := ws.last
	ws.mu.Unlock()
	for _, w := range ws.all {
		w.mu.Lock()
		port := w.port
		w.mu.Unlock()
		if port < last {
			return fmt.Errorf("the watcher at home at member %d knows port %d, the last is %d", w.home+1, port, last)
		}
	}
	return nil
}

// report is for when they have ended.
func (ws *watchers) report() {
	for _, w := range ws.all {
		ws.t.Logf("the watcher at home at member %d had %d streams, and was told of a change %v after its acknowledgement at most", w.home+1, w.streams, w.lag.Round(time.Millisecond))
	}
}

// run goes from member to member, its own first.
func (w *watcher) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		if w.watch(ctx, w.home) {
			n = 0
			continue
		}
		within, cancel := context.WithTimeout(ctx, watchAway)
		w.watch(within, (w.home+1+n%(len(w.of.addrs)-1))%len(w.of.addrs))
		cancel()
		rest(ctx, watchRest)
	}
}

// watch is one stream. It is false when it told nothing.
func (w *watcher) watch(ctx context.Context, at int) (told bool) {
	conn, err := grpc.NewClient("passthrough:///"+w.of.addrs[at], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.of.t.Error(err)
		return false
	}
	defer conn.Close()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return false
	}
	const name = beatService + ".default"
	const typeURL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	first := &discovery.DeltaDiscoveryRequest{
		Node:    &core.Node{Id: fmt.Sprintf("watcher-%d", w.home+1), UserAgentName: "envoy", Locality: &core.Locality{Region: "local"}},
		TypeUrl: typeURL, ResourceNamesSubscribe: []string{name},
	}
	if w.version != "" {
		first.InitialResourceVersions = map[string]string{name: w.version}
	}
	if stream.Send(first) != nil {
		return false
	}
	w.streams++
	for {
		r, err := stream.Recv()
		if err != nil {
			return told
		}
		told = true
		if len(r.GetRemovedResources()) > 0 {
			w.of.t.Errorf("member %d tells the watcher at home at member %d that %v are gone", at+1, w.home+1, r.GetRemovedResources())
		}
		for _, one := range r.GetResources() {
			w.take(at, one)
		}
		if stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: r.GetNonce()}) != nil {
			return told
		}
	}
}

// take holds what is told against what is known.
func (w *watcher) take(at int, r *discovery.Resource) {
	var a endpoint.ClusterLoadAssignment
	if err := r.GetResource().UnmarshalTo(&a); err != nil {
		w.of.t.Error(err)
		return
	}
	port, there := 0, false
	for _, l := range a.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			p := int(e.GetEndpoint().GetAddress().GetSocketAddress().GetPortValue())
			there = there || p == stays
			port = max(port, p)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if port < w.port || !there && w.port != 0 {
		w.of.t.Errorf("member %d tells the watcher at home at member %d of version %s with port %d and the one that stays: %v; before, in version %s, it was port %d",
			at+1, w.home+1, r.GetVersion(), port, there, w.version, w.port)
	}
	if port > w.port {
		w.lag = max(w.lag, w.of.since(port))
	}
	w.version, w.port = r.GetVersion(), max(port, w.port)
}

// beat changes what is watched, by a write of which each is done once: no earlier one comes late.
func (p *page) beat(ctx context.Context, ws *watchers) {
	for port := stays + 1; port < beatPorts && ctx.Err() == nil; port++ {
		if !p.put(ctx, beatService, "counts", port, fmt.Sprint("counts/", port)) {
			return
		}
		ws.ack(port)
		rest(ctx, beatRest)
	}
}
