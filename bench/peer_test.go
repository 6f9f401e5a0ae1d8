package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The caches of go-control-plane stand beside ours in a process of their own, which
// takes the same registrations by the same HTTP calls and serves the same streams. It neither logs nor syncs, and has one copy of everything.
const (
	linearCache   = "LinearCache"
	snapshotCache = "SnapshotCache"
)

// peerVariable tells this program, started once more, that it is a peer, and which.
const peerVariable = "STELLMAP_BENCH_PEER"

// A peerScene is what a peer is and begins with.
type peerScene struct {
	Cache               string
	HTTP, XDS           string
	Services, Instances int
	Extra               []int // services of one instance
	Tables              bool  // clusters and routes too, and not endpoints only
}

func TestMain(m *testing.M) {
	if text := os.Getenv(peerVariable); text != "" {
		if err := servePeer(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "stellmap-bench-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	return m.Run()
}

// A peer keeps instances as they are registered and puts what follows from them into a cache.
type peer struct {
	scene peerScene
	cache cache.Cache
	put   func(changed string) error // brings the cache up to date

	mu       sync.Mutex // guards what follows
	services map[string]map[string]registered
	built    map[string]*endpoint.ClusterLoadAssignment // by service
	version  int
}

// registered is what a peer reads of a registration.
type registered struct {
	Endpoints []struct {
		Host         string
		Port, Weight uint32
	}
	Zone string
}

func servePeer(text string) error {
	p := &peer{services: make(map[string]map[string]registered), built: make(map[string]*endpoint.ClusterLoadAssignment)}
	if err := json.Unmarshal([]byte(text), &p.scene); err != nil {
		return err
	}
	if err := p.fill(); err != nil {
		return err
	}
	if err := p.makeCache(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", p.scene.XDS)
	if err != nil {
		return err
	}
	g := grpc.NewServer(grpc.MaxConcurrentStreams(1000)) // of a connection; ours has the same
	discovery.RegisterAggregatedDiscoveryServiceServer(g, server.NewServer(context.Background(), p.cache, nil))
	failed := make(chan error, 2)
	go func() { failed <- g.Serve(listener) }()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("PUT /api/v2/namespaces/default/services/{service}/instances/{id}", p.register)
	go func() { failed <- http.ListenAndServe(p.scene.HTTP, mux) }()
	return <-failed // it is killed when the benchmark is over
}

// fill registers what is there from the beginning.
func (p *peer) fill() error {
	services := slices.Clone(p.scene.Extra)
	for n := range p.scene.Services {
		services = append(services, n)
	}
	for _, n := range services {
		instances := p.scene.Instances
		if n >= p.scene.Services {
			instances = 1
		}
		for i := range instances {
			if err := p.keep(serviceName(n), instanceName(i), []byte(registrationOf(n, i, weights+1))); err != nil {
				return err
			}
		}
	}
	return nil
}

// keep takes a registration.
func (p *peer) keep(service, id string, body []byte) error {
	var r registered
	if err := json.Unmarshal(body, &r); err != nil {
		return err
	}
	if p.services[service] == nil {
		p.services[service] = make(map[string]registered)
	}
	p.services[service][id] = r
	p.built[service] = assignment(service, p.services[service])
	return nil
}

func (p *peer) register(w http.ResponseWriter, r *http.Request) {
	var body json.RawMessage
	err := json.NewDecoder(r.Body).Decode(&body)
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if err = p.keep(r.PathValue("service"), r.PathValue("id"), body); err == nil {
			err = p.put(r.PathValue("service"))
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// makeCache makes the cache and puts all into it.
func (p *peer) makeCache() error {
	switch p.scene.Cache {
	case linearCache:
		p.makeLinear()
		return nil
	case snapshotCache:
		snapshots := cache.NewSnapshotCache(false, sameForAll{}, nil)
		p.cache = snapshots
		p.put = func(string) error { return p.snapshot(snapshots) }
		return p.put("")
	}
	return fmt.Errorf("no cache is called %q", p.scene.Cache)
}

// makeLinear makes a cache for each type, with one key for each resource.
func (p *peer) makeLinear() {
	endpoints, clusters, routes := make(map[string]types.Resource), make(map[string]types.Resource), make(map[string]types.Resource)
	for service, a := range p.built {
		endpoints[a.ClusterName] = a
		if p.scene.Tables {
			clusters[a.ClusterName] = edsCluster(service)
		}
	}
	if p.scene.Tables {
		routes[routeTable] = p.routes()
	}
	of := func(typ string, all map[string]types.Resource) *cache.LinearCache {
		return cache.NewLinearCache(typ, cache.WithInitialResources(all))
	}
	eds, cds, rds := of(endpointType, endpoints), of(clusterType, clusters), of(routeType, routes)
	p.cache = &cache.MuxCache{
		Classify:      func(r *cache.Request) string { return r.TypeUrl },
		ClassifyDelta: func(r *cache.DeltaRequest) string { return r.TypeUrl },
		Caches:        map[string]cache.Cache{endpointType: eds, clusterType: cds, routeType: rds},
	}
	p.put = func(service string) error {
		err := eds.UpdateResource(clusterOf(service), p.built[service])
		if p.scene.Tables {
			err = errors.Join(err, cds.UpdateResource(clusterOf(service), edsCluster(service)), rds.UpdateResource(routeTable, p.routes()))
		}
		return err
	}
}

// sameForAll gives every proxy the same snapshot: a snapshot for each would be as many
// to be made anew by a change as there are proxies.
type sameForAll struct{}

func (sameForAll) ID(*core.Node) string { return "all" }

// snapshot makes one of all there is.
func (p *peer) snapshot(to cache.SnapshotCache) error {
	p.version++
	all := map[string][]types.Resource{}
	for service, a := range p.built {
		all[endpointType] = append(all[endpointType], a)
		if p.scene.Tables {
			all[clusterType] = append(all[clusterType], edsCluster(service))
		}
	}
	if p.scene.Tables {
		all[routeType] = []types.Resource{p.routes()}
	}
	s, err := cache.NewSnapshot(strconv.Itoa(p.version), all)
	if err != nil {
		return err
	}
	return to.SetSnapshot(context.Background(), "all", s)
}

// assignment has the instances by zone, as ours has.
func assignment(service string, instances map[string]registered) *endpoint.ClusterLoadAssignment {
	zones := make(map[string]*endpoint.LocalityLbEndpoints)
	a := &endpoint.ClusterLoadAssignment{ClusterName: clusterOf(service)}
	for _, r := range instances {
		z := zones[r.Zone]
		if z == nil {
			z = &endpoint.LocalityLbEndpoints{Locality: &core.Locality{Region: "local", Zone: r.Zone}, LoadBalancingWeight: wrapperspb.UInt32(1)}
			zones[r.Zone] = z
			a.Endpoints = append(a.Endpoints, z)
		}
		at := &core.SocketAddress{Address: r.Endpoints[0].Host, PortSpecifier: &core.SocketAddress_PortValue{PortValue: r.Endpoints[0].Port}}
		z.LbEndpoints = append(z.LbEndpoints, &endpoint.LbEndpoint{
			HealthStatus:        core.HealthStatus_HEALTHY,
			LoadBalancingWeight: wrapperspb.UInt32(r.Endpoints[0].Weight),
			HostIdentifier:      &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: at}}}},
		})
	}
	return a
}

func edsCluster(service string) *cluster.Cluster {
	return &cluster.Cluster{
		Name:                 clusterOf(service),
		ConnectTimeout:       durationpb.New(250 * time.Millisecond),
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig: &cluster.Cluster_EdsClusterConfig{EdsConfig: &core.ConfigSource{
			ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}}, ResourceApiVersion: core.ApiVersion_V3,
		}},
	}
}

// routeTable is what the routes of all services are called.
const routeTable = "egress"

// routes are much smaller than ours: without retries, without the longer time for streams of events.
func (p *peer) routes() *route.RouteConfiguration {
	table := &route.RouteConfiguration{Name: routeTable}
	for service := range p.built {
		to := &route.RouteAction{ClusterSpecifier: &route.RouteAction_Cluster{Cluster: clusterOf(service)}}
		table.VirtualHosts = append(table.VirtualHosts, &route.VirtualHost{
			Name: clusterOf(service), Domains: []string{clusterOf(service), clusterOf(service) + ".mesh"},
			Routes: []*route.Route{{
				Match:  &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: "/"}},
				Action: &route.Route_Route{Route: to},
			}},
		})
	}
	return table
}

// startPeer starts a peer in a process of its own.
func startPeer(b *testing.B, scene peerScene) *daemon {
	b.Helper()
	ports := freePorts(b, 2)
	scene.HTTP, scene.XDS = ports[0], ports[1]
	text, err := json.Marshal(scene)
	if err != nil {
		b.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	d := newDaemon(self, b.TempDir())
	d.http, d.xds, d.env = scene.HTTP, scene.XDS, []string{peerVariable + "=" + string(text)}
	d.start(b)
	b.Cleanup(func() { d.kill(b) })
	return d
}
