package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Config says which registry, and who asks.
type Config struct {
	// Servers are the addresses, host:port, at which members take gRPC ([server] xds_addr).
	// One will do; with more the client goes to another when one fails.
	Servers []string
	// TLS is how servers are spoken to. nil is in the clear, and for loopback only.
	TLS *tls.Config
	// Token is sent to the servers with every call, where it is not empty.
	Token string

	// Namespace is that of whatever names none; "" = default.
	Namespace string
	// Zone and Region are where this process is. Instances are registered in Zone
	// where they name none, and those near by are picked first.
	Zone, Region string

	// Dir is a folder of this process's own, where what was discovered and the lease
	// tokens of what is registered outlive it; "" = nowhere. See Discover and Register.
	Dir string
	// KeepOnClose leaves what is registered to its leases when the client is closed,
	// for a process that comes back under the same ids, with Dir.
	KeepOnClose bool

	Logger *slog.Logger         // nil = none
	Meters metric.MeterProvider // nil = none
	Traces trace.TracerProvider // nil = none
}

// The bounds of a client.
const (
	serversMax    = 64
	leasesMax     = 10_000  // what one client keeps registered
	servicesMax   = 512     // what one client discovers: each is a stream of the connection, which has 1,000
	instancesMax  = 100_000 // of one discovered service
	callTimeout   = 5 * time.Second
	closeTimeout  = 5 * time.Second // for all deregistrations of Close together
	registersMost = 8               // at a time, when many have to be registered again, or deregistered by Close
)

// Client speaks to one registry.
type Client struct {
	config  Config
	timing  timing
	log     *slog.Logger
	metrics *metrics
	servers *servers
	keeper  *keeper
	store   *store // nil = nothing outlives the process

	life  context.Context // over when the client is closed
	end   context.CancelFunc
	group sync.WaitGroup // what Close waits for

	mu       sync.Mutex // guards what follows
	closed   bool
	services map[Query]*Service
}

// timing is how long a client waits for what. Tests hurry.
type timing struct {
	healthFirst time.Duration // for a server to say how it is
	patience    time.Duration // with a server that says that it has no leader, before another is tried
	steady      time.Duration // a connection that held for so long begins no row of failures
	retryMin    time.Duration // between tries, at first; then twice as long each time
	retryMax    time.Duration
	renewal     time.Duration // for the answer to renewals
	liveWait    time.Duration // for the first live state, where a saved one is there
	saveEvery   time.Duration
	hold        time.Duration // of what another cluster has not told of: as long as the usual lease
}

var usualTiming = timing{
	healthFirst: 2 * time.Second, patience: 5 * time.Second, steady: 10 * time.Second,
	retryMin: 100 * time.Millisecond, retryMax: 5 * time.Second,
	renewal: 3 * time.Second, liveWait: time.Second, saveEvery: 5 * time.Second, hold: ttlUsual,
}

// New makes a client. It returns at once: the servers need not be there yet.
func New(c Config) (*Client, error) { return newClient(c, usualTiming) }

func newClient(config Config, t timing) (*Client, error) {
	if err := config.check(); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if config.Namespace == "" {
		config.Namespace = "default"
	}
	c := &Client{config: config, timing: t, log: config.Logger, services: make(map[Query]*Service)}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.keeper = newKeeper(c)
	var err error
	if c.store, err = openStore(config.Dir); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if c.metrics, err = newMetrics(c); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c.life, c.end = context.WithCancel(context.Background())
	c.servers = newServers(c)
	c.group.Go(func() { c.servers.run(c.life) })
	c.group.Go(func() { c.keeper.run(c.life) })
	if c.store != nil {
		c.group.Go(func() { c.saveViews(c.life) })
	}
	return c, nil
}

// check tells all that is wrong with a configuration.
func (c *Config) check() error {
	var bad []error
	if len(c.Servers) == 0 || len(c.Servers) > serversMax {
		bad = append(bad, fmt.Errorf("config.Servers: %d of them: name 1 to %d members, each as host:port", len(c.Servers), serversMax))
	}
	for n, s := range c.Servers {
		host, _, err := net.SplitHostPort(s)
		switch {
		case err != nil:
			bad = append(bad, fmt.Errorf("config.Servers[%d]: %q is no address: host:port, where the port is the member's for xDS: %w", n, s, err))
		case c.TLS == nil && !onLoopback(host):
			bad = append(bad, fmt.Errorf("config.Servers[%d]: %q is not on loopback, and would be spoken to in the clear: give TLS", n, s))
		}
	}
	return errors.Join(bad...)
}

func onLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Close ends all watches, deregisters what is registered unless KeepOnClose is set,
// and returns when nothing of the client is left. Its error says what could not be
// deregistered: that stays until its lease runs out.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		c.group.Wait()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.keeper.close()
	var err error
	if !c.config.KeepOnClose {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		err = c.keeper.deregisterAll(ctx)
	}
	c.end()
	c.group.Wait()
	return errors.Join(err, c.metrics.gauges.Unregister())
}

// pause waits about d, and less than that; false when the context is over.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(jittered(d))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// jittered is between a half of d and d, so that many who wait for the same do not
// come at once.
func jittered(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// after is how long to wait after so many failures in a row.
func (t *timing) after(failures int) time.Duration {
	return min(t.retryMin<<min(failures, 20), t.retryMax)
}
