package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/stellmap/stellmap/access"
	"github.com/stellmap/stellmap/access/audit"
	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/consensus/peer"
	"github.com/stellmap/stellmap/federation"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/grpcapi"
	"github.com/stellmap/stellmap/registry/httpapi"
	"github.com/stellmap/stellmap/registry/probe"
	"github.com/stellmap/stellmap/storage"
	"github.com/stellmap/stellmap/xds"
)

// nodeOptions say what runNode runs.
type nodeOptions struct {
	config    Config
	dev       bool
	temporary bool // the data go with a clean stop
	logger    *slog.Logger
	stdout    io.Writer // for the banner
}

// drainTime is how long calls in flight have to end after a signal; what is
// not done then is cut off.
const drainTime = 5 * time.Second

// node is a member and everything that it serves.
type node struct {
	nodeOptions
	listeners listeners
	crowd     *crowd
	pace      *access.Pace
	opened    []io.Closer // in the order of opening
	metrics   *prometheus.Registry
	spans     *spans     // nil = no collector
	failed    chan error // what must not happen happened, outside any Run; one is enough

	audit     *audit.Log      // nil = none
	denials   *denials        // what was not let
	limiter   *access.Limiter // nil = nobody is held to a share
	stays     *stays          // calls that stay open; nil = authentication is off
	policies  *policies       // nil = authentication is off
	bootstrap *bootstrapToken // nil = there is none
	secrets   []secret        // that callers may show and that are no access tokens
	issuer    *access.Issuer  // nil = no JWT counts
	tls       *access.Source  // nil = no TLS
	space     *storage.Space
	rebuilt   *storage.Rebuilt  // nil when the state was whole
	joining   consensus.Joining // what a node was told that has just been taken in
	transport *peer.Transport
	group     *consensus.Group
	backups   *backups
	registry  *registry.Registry
	prober    *probe.Prober
	xds       *xds.Server
	gate      *gate

	public, admin     *door
	api               *httpapi.API
	grpcAPI           *grpcapi.API
	xdsClosed         closing // until the xDS port has its server
	xdsGRPC, peerGRPC *grpc.Server
	exporter          *federation.Exporter
	importer          *federation.Importer
	xdsHealth         *health.Server
	tokenFile         string
	lastResort        *time.Timer // set once something has failed
}

// runNode runs a member until the context ends, then stops it in order. An
// error means that it could not start or must not go on.
func runNode(ctx context.Context, o nodeOptions) error { return newNode(o).live(ctx) }

func newNode(o nodeOptions) *node {
	return &node{nodeOptions: o, metrics: prometheus.NewRegistry(), failed: make(chan error, 1)}
}

func (n *node) live(ctx context.Context) (err error) {
	defer func() {
		if n.lastResort != nil {
			n.lastResort.Stop()
		}
	}()
	defer func() { err = errors.Join(err, n.close()) }()
	switch err := n.open(ctx); {
	case err == nil:
		return n.run(ctx)
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		n.logger.Info("stopped before it had started", "what", err)
		return nil
	default:
		return err
	}
}

// open takes the data directory and the ports and reads the state back.
func (n *node) open(ctx context.Context) error {
	dir := n.config.Node.DataDir
	lock, err := storage.LockDir(vfs.Default, dir)
	if err != nil {
		return err
	}
	n.opened = append(n.opened, lock)
	if n.space, err = openSpace(n.config, vfs.Default, n.logger, n.metrics); err != nil {
		return err
	}
	if err := n.openAudit(); err != nil {
		return err
	}
	if err := n.openTLS(); err != nil {
		return err
	}
	if err := n.openDenials(); err != nil {
		return err
	}
	if err := n.openLimits(); err != nil {
		return err
	}
	if n.listeners, err = listen(&n.config); err != nil {
		return err
	}
	n.opened = append(n.opened, n.listeners)
	if n.crowd, err = newCrowd(filesMost(), n.metrics); err != nil {
		return err
	}
	n.answerAtOnce()
	token := ""
	if !n.dev {
		n.tokenFile = filepath.Join(dir, "admin.token")
		if token, err = adminToken(n.tokenFile); err != nil {
			return err
		}
	}
	machine, err := n.openGroup(ctx, dir)
	if err != nil {
		return err
	}
	return n.makeServers(machine, token)
}

// answerAtOnce has the ports for clients say that this member starts. Other
// members wait for it by themselves, and not for long.
func (n *node) answerAtOnce() {
	public, admin := httpapi.Starting(n.config.Node.ID, n.config.authenticates(), n.logger)
	n.public, n.admin = openDoor(n.secured(n.listeners.http, access.HTTP), public, n.logger), openDoor(n.secured(n.listeners.admin, access.Admin), admin, n.logger)
	n.xdsClosed = turnAway(n.listeners.xds)
	n.opened = append(n.opened, n.public, n.admin, n.xdsClosed)
}

// openGroup opens the storage and the consensus group over it.
func (n *node) openGroup(ctx context.Context, dir string) (*registry.Machine, error) {
	fs, c := vfs.Default, n.config
	file := identityFile(fs, dir)
	identity, err := consensus.Found(file, consensus.Founding{NodeID: c.Node.ID, ClusterID: c.Node.ClusterID, Members: c.members(), Join: len(c.Cluster.Join) > 0})
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dir, err)
	}
	if identity.Stage == storage.StageJoining {
		if identity, err = n.join(ctx, file, identity); err != nil {
			return nil, err
		}
	}
	store, machineOf, err := n.openStore(ctx, dir, consensus.LogBase(identity))
	if err != nil {
		return nil, err
	}
	n.opened = append(n.opened, store)
	n.transport, err = peer.New(peer.Config{Address: n.addressBook(), Credentials: n.toMember(), Proves: n.provesMember(), Logger: n.logger, Registerer: n.metrics, Random: rand.Int64N})
	if err != nil {
		return nil, err
	}
	n.group, err = consensus.Open(consensus.Config{
		ID: c.Node.ID, ClusterID: c.Node.ClusterID, Members: c.members(), Self: memberOf(c.self()), Joining: n.joining,
		Identity: identity, IdentityFile: file, Log: store.Log, Engine: store.Engine, Machine: machine{machineOf}, Transport: n.transport,
		Snapshots: store.Snapshots, SnapshotEntries: c.Snapshot.Entries, SnapshotBytes: c.Snapshot.Bytes, LogTail: c.Snapshot.Tail,
		CheckEvery: c.Cluster.CheckEvery, Low: n.space.Low, Grows: registry.Grows,
		Logger: n.logger, Registerer: n.metrics,
	})
	if err != nil {
		return nil, err
	}
	n.transport.Bind(n.group)
	n.backups = newBackups()
	n.opened = append(n.opened, n.backups)
	return machineOf, nil
}

// openStore opens the storage and reads the registry back. A state that is
// damaged is built anew from a snapshot, be it that opening or reading finds it.
func (n *node) openStore(ctx context.Context, dir string, base storage.Position) (*storage.Store, *registry.Machine, error) {
	var m *registry.Machine
	s, err := storage.OpenStore(ctx, storage.StoreOptions{
		Snapshots: storage.SnapshotsOptions{FS: vfs.Default, Dir: filepath.Join(dir, "snapshot"), Keep: int(n.config.Snapshot.Keep), Logger: n.logger},
		Engine:    storage.EngineOptions{FS: vfs.Default, Dir: filepath.Join(dir, "state"), Logger: n.logger, OnFatal: n.fail},
		Log: storage.LogOptions{
			FS: vfs.Default, Dir: filepath.Join(dir, "wal"), Base: base, Salt: rand.Uint64, SegmentBytes: int64(n.config.Storage.Segment),
		},
		Read: func(engine *storage.Engine) (err error) {
			m, err = n.openMachine(engine)
			return err
		},
	})
	if err != nil {
		return nil, nil, err
	}
	n.rebuilt = s.Rebuilt
	switch r := s.Rebuilt; {
	case r == nil:
	case r.Install:
		n.logger.Warn("the last process ended while it installed a snapshot, which is done now", "because", r.Because, "snapshot_index", r.From.Index)
	default:
		n.logger.Error("the state was damaged and was built anew from a snapshot and the log", "because", r.Because, "snapshot_index", r.From.Index, "damaged_snapshots", r.Damaged, "kept_aside", r.Aside)
	}
	return s, m, nil
}

// openMachine reads the whole state. What consensus keeps in it is looked at
// here already: when a group reads it, it is too late to build the state anew.
func (n *node) openMachine(engine *storage.Engine) (*registry.Machine, error) {
	meta := []byte(storage.MetaPrefix)
	if err := engine.Scan(meta, storage.PrefixEnd(meta), func(_, _ []byte) error { return nil }); err != nil {
		return nil, fmt.Errorf("read what consensus keeps in the engine: %w", err)
	}
	return registry.OpenMachine(registry.MachineConfig{
		Engine: engine, Region: n.config.Node.Region, Logger: n.logger, Registerer: n.metrics,
		EventsMax: eventsKept() / 2, History: registry.HistoryBounds{Events: eventsKept()},
	})
}

// makeServers makes what answers on the ports.
func (n *node) makeServers(machine *registry.Machine, token string) (err error) {
	for _, c := range []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := n.metrics.Register(c); err != nil {
			return fmt.Errorf("register a metric: %w", err)
		}
	}
	n.registry = registry.New(registry.Config{Machine: machine, Replicator: replicator{n.group}, Logger: n.logger, Preserve: n.config.preservation(), Regions: n.config.regionOrder(), WatchesPerAddress: n.config.watchesPerAddress()})
	if err := n.openProber(machine); err != nil {
		return err
	}
	if err := n.openAuth(machine, token); err != nil {
		return err
	}
	n.gate = newGate(n.group, n.config.XDS.StaleStartAfter, n.logger)
	if n.spans, err = openSpans(context.Background(), n.config, n.logger, n.metrics); err != nil {
		return err
	}
	if n.spans != nil {
		n.opened = append(n.opened, n.spans)
	}
	n.xds = xds.New(xds.Config{
		Machine: machine, Region: n.config.Node.Region, Regions: n.config.regionOrder(), Incarnation: func() string { return n.group.Status().Incarnation },
		CaughtUp: n.gate.wait, Logger: n.logger, Registerer: n.metrics,
		StreamAge: n.config.XDS.StreamAge, FirstResponses: n.config.XDS.FirstResponses, Requests: n.config.limit(n.config.Limits.StreamRequests, streamRequestsDefault),
		LoadEvery: n.config.XDS.LoadEvery, Report: n.registry.Report, Traces: n.traces(),
		Identify: proved,
	})
	n.api, err = httpapi.New(httpapi.Config{
		Registry: n.registry, Cluster: n.clusterStatus, XDSReady: n.gate.ready, Withheld: n.withheld, Snapshot: n.backup, Membership: membership{n.group, n.provesMember()}, Replicators: n.replicators, Federation: n.federation, AdminToken: token, Audit: n.audit,
		Access: n.guardOfHTTP(), Stay: n.stayOfHTTP(), Share: n.shareOfHTTP(), Place: n.placeOfHTTP(), Denied: n.denials.tell, OpenMetrics: onLoopback(n.config.Server.AdminAddr),
		Proxies:   proxies{xds.NewFleet(n.config.Node.ID, n.xds, peers{n.group, n.transport})},
		Authority: n.explainer(machine),
		Gatherer:  n.metrics, Registerer: n.metrics, Logger: n.logger,
	})
	if err != nil {
		return err
	}
	n.admin.server.RegisterOnShutdown(n.backups.stop)
	n.public.server.RegisterOnShutdown(n.api.EndWatches)
	if err := n.makeClientGRPC(); err != nil {
		return err
	}
	if err := n.makeExporter(); err != nil {
		return err
	}
	if err := n.makeImporter(); err != nil {
		return err
	}
	n.transport.Inform(peer.Proxies, n.xds)
	n.transport.Inform(peer.Regions, regionLinks{n})
	n.peerGRPC = grpc.NewServer(append(peer.ServerOptions(n.credentials(access.Peers)), n.guardOfRPC(access.Peers)...)...)
	n.transport.Register(n.peerGRPC)
	n.exporter.Register(n.peerGRPC)
	mustHaveRows(n.peerGRPC)
	return nil
}

// fail ends the member for a reason that no Run returns.
func (n *node) fail(err error) {
	select {
	case n.failed <- err:
	default:
	}
}

// run is the member's life. It ends in this order: nothing new comes in, what
// is in flight is answered, the consensus group stops and flushes.
func (n *node) run(ctx context.Context) error {
	group, stopGroup := context.WithCancel(context.Background())
	defer stopGroup()
	inner, broken := errgroup.WithContext(group)
	inner.Go(func() error { return n.audit.Run(group) }) // to the end: what is answered last is recorded, too
	inner.Go(func() error { return n.group.Run(broken) })
	inner.Go(func() error { return n.transport.Run(broken) })
	inner.Go(func() error { return n.registry.Run(broken) })
	inner.Go(func() error { return n.prober.Run(broken) })
	inner.Go(func() error { return n.space.Run(broken) })
	inner.Go(func() error { return n.bootstrap.run(broken) })
	inner.Go(func() error { return n.runTLS(broken) })
	inner.Go(func() error { return n.runIssuer(broken) })
	inner.Go(func() error { return n.stays.run(broken) })
	inner.Go(func() error { return serveGRPC(n.peerGRPC, n.narrowed(n.crowd.bound(n.listeners.grpc, access.Peers))) })
	inner.Go(func() error {
		select {
		case err := <-n.failed:
			return err
		case <-broken.Done():
			return nil
		}
	})

	// The servers end with the group: without it they have nothing to say.
	serve, stopServing := context.WithCancel(broken)
	defer stopServing()
	outer, fallen := errgroup.WithContext(serve)
	outer.Go(func() error { return n.xds.Run(fallen) })
	outer.Go(func() error { return n.openGate(fallen) })
	outer.Go(func() error { return n.grpcAPI.Run(fallen) })
	outer.Go(func() error { return n.exporter.Run(fallen) })
	outer.Go(func() error { return n.importer.Run(fallen) })
	outer.Go(func() error { return n.tellReadiness(fallen) })
	outer.Go(n.serveXDS)
	outer.Go(n.public.wait)
	outer.Go(n.admin.wait)
	n.public.show(httpapi.ForHosts(n.api.Handler(), n.config.hosts()))
	n.admin.show(httpapi.ForHosts(n.api.AdminHandler(), n.config.hosts()))
	if err := n.started().print(n.stdout); err != nil {
		n.fail(fmt.Errorf("print the banner: %w", err))
	}

	votes := n.whileItServes(ctx, fallen)
	drained := n.drain(stopServing)
	served := outer.Wait()
	if votes {
		n.whileItVotes(ctx, broken)
	}
	stopGroup()
	n.peerGRPC.Stop()
	return errors.Join(inner.Wait(), served, drained)
}

// whileItServes waits for the end of serving clients. True says that the member was
// removed, and may have to stay for its vote.
func (n *node) whileItServes(ctx, fallen context.Context) (removed bool) {
	select {
	case <-ctx.Done():
		n.logger.Info("stopping: no new calls, those in flight are answered")
		n.handOver()
	case <-n.group.Removed():
		n.logger.Warn("removed: the ports for clients are closed, since only other members have what is new")
		return true
	case <-fallen.Done():
		n.lastResort = endAnyway(n.logger, os.Exit)
	}
	return false
}

// whileItVotes waits until a member that was removed is not needed any more.
func (n *node) whileItVotes(ctx, broken context.Context) {
	select {
	case <-ctx.Done():
	case <-broken.Done():
		n.lastResort = endAnyway(n.logger, os.Exit)
	}
}

func (n *node) serveXDS() error {
	if err := n.xdsClosed.Close(); err != nil {
		return fmt.Errorf("give the xDS port to its server: %w", err)
	}
	return serveGRPC(n.xdsGRPC, n.narrowed(n.crowd.bound(n.listeners.xds, access.XDS)))
}

// handOverTime is how long a leader that stops waits for the next one: a little
// more than Raft gives it.
const handOverTime = time.Second

// handOver spares the others the time in which they would miss this leader.
func (n *node) handOver() {
	ctx, cancel := context.WithTimeout(context.Background(), handOverTime)
	defer cancel()
	if err := n.group.HandOver(ctx); err != nil {
		n.logger.Warn("the leadership is not handed over, the others will elect another leader", "why", err)
	}
}

// openGate runs the gate and tells gRPC health checks when it opens.
func (n *node) openGate(ctx context.Context) error {
	if n.gate.run(ctx) {
		n.xdsHealth.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	}
	return nil
}

// drain takes no more calls and waits for those in flight, but not for long. Proxies are
// told to go first, by their connections, and then sent away a few at a time: they go on
// with other members, which do not get all of them at once. What serves ends after that.
func (n *node) drain(stopServing func()) error {
	n.xdsHealth.Shutdown()
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	var servers errgroup.Group
	servers.Go(func() error {
		defer context.AfterFunc(ctx, n.xdsGRPC.Stop)()
		n.xdsGRPC.GracefulStop()
		return nil
	})
	n.xds.Drain(ctx)
	stopServing()
	servers.Go(func() error { return shutdown(ctx, n.public.server) })
	servers.Go(func() error { return shutdown(ctx, n.admin.server) })
	return servers.Wait()
}

func shutdown(ctx context.Context, s *http.Server) error {
	if err := s.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop serving HTTP: calls were still in flight after %v and were cut off: %w", drainTime, err), s.Close())
	}
	return nil
}

// close lets go of what was opened, the last first.
func (n *node) close() error {
	var errs []error
	for i := len(n.opened) - 1; i >= 0; i-- {
		errs = append(errs, n.opened[i].Close())
	}
	return errors.Join(errs...)
}

func (n *node) started() started {
	text := replayed(n.group.Recovery())
	if n.rebuilt != nil && n.rebuilt.Install {
		text += fmt.Sprintf(", after the install of the snapshot at %d was finished", n.rebuilt.From.Index)
	} else if n.rebuilt != nil {
		text += fmt.Sprintf(", after the damaged state was built anew from the snapshot at %d", n.rebuilt.From.Index)
	}
	members, status := 0, n.group.Status()
	if ids := status.IDs(); slices.Contains(ids, n.config.Node.ID) {
		members = len(ids)
	}
	return started{config: n.config, members: members, dev: n.dev, temporary: n.temporary, replayed: text, tokenFile: n.tokenFile, bootstrap: n.bootstrap}
}

// replayed says what the start found.
func replayed(r consensus.Recovery) string {
	if r.Founded {
		return "new, nothing to be replayed"
	}
	text := fmt.Sprintf("replayed %d log entries above the state at %d in %v", r.Replayed, r.Engine.Index, r.Duration.Round(time.Millisecond))
	if r.TornBytes > 0 {
		text += fmt.Sprintf(", cut %d bytes of an interrupted write", r.TornBytes)
	}
	return text
}
