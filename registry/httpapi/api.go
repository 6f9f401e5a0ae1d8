package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/access/audit"
	"github.com/stellmap/stellmap/registry"
)

// An API serves one member's registry over HTTP.
type API struct {
	registry    *registry.Registry
	cluster     func() ClusterStatus
	xdsReady    func() error
	withheld    func(context.Context, registry.ServiceKey) []Withheld
	proxies     Proxies
	snapshot    func(context.Context, io.Writer) error
	membership  Membership
	replicators func() []Replicator
	federation  func() Federation
	token       string
	audit       *audit.Log
	access      func(*http.Request) (registry.Caller, error)
	stay        func(context.Context, func() error) (context.Context, func(), error)
	share       func(*http.Request, registry.Verb, registry.Resource, bool) error
	place       func(*http.Request) (func(), error)
	denied      func(port, from, why string)
	openMetrics bool
	authority   Authority
	newToken    func() string
	log         *slog.Logger
	metrics     *metrics
	limits      limits

	public, admin *router

	inflight atomic.Int64 // calls that hold a slot
	batches  atomic.Int64 // those of them that are batches
	large    atomic.Int64 // those of them with a large body
	reads    atomic.Int64 // those that read
	watches  atomic.Int64 // that are open
	frames   *frames
	stopping context.Context // over when watches are to end
	stop     context.CancelFunc
}

// Config is what the API needs.
type Config struct {
	Registry    *registry.Registry                                    // required
	Cluster     func() ClusterStatus                                  // required: how this member sees the cluster
	XDSReady    func() error                                          // nil error = new ADS streams are served; nil func = always
	Withheld    func(context.Context, registry.ServiceKey) []Withheld // what proxies are not told of a service; nil = nothing
	Proxies     Proxies                                               // tells of the xDS clients of all members; nil = there are no such paths
	Snapshot    func(context.Context, io.Writer) error                // writes a backup of the state as it is; nil = there is no such path
	Membership  Membership                                            // changes who the members are; nil = there are no such paths
	Replicators func() []Replicator                                   // who follows this member; nil = nobody
	Federation  func() Federation                                     // what the settings say of other regions; nil = nothing
	Audit       *audit.Log                                            // where calls are recorded; nil = nowhere
	AdminToken  string                                                // what /admin/ and force ask for; "" = nothing is asked
	// Access finds out who asks, who is then asked for everything that the table of needs
	// says; ErrNobody when that is not known. The admin token is somebody on the admin port
	// alone. nil = authentication is off, and the admin token is all that is ever asked for.
	Access func(*http.Request) (registry.Caller, error)
	// Stay gives what stays open a context that is over when its caller may no more, with why;
	// still says whether he may. What it returns beside is called at the end. nil = they stay.
	Stay func(ctx context.Context, still func() error) (context.Context, func(), error)
	// Share holds a request that needs something, of something or other where some is said, to its
	// caller's share of this member, be he known or not. nil = nobody is held to any.
	Share       func(q *http.Request, v registry.Verb, r registry.Resource, some bool) error
	Place       func(*http.Request) (leave func(), err error) // for a watch of the caller, beside WatchPlace; nil = there always is one
	Denied      func(port, from, why string)                  // is told of calls that were not let; nil = nobody is
	OpenMetrics bool                                          // with Access: the admin port shows metrics to whoever reaches it
	Authority   Authority                                     // explains who may do what, and draws access tokens; nil = there are no such paths
	LeaseToken  func() string                                 // makes lease tokens that nobody can guess; nil = at random
	Gatherer    prometheus.Gatherer                           // for /metrics; nil = there is no such page
	Registerer  prometheus.Registerer                         // nil = none
	Logger      *slog.Logger                                  // nil = none
}

// ClusterStatus is how a member sees the cluster.
type ClusterStatus struct {
	ID, ClusterID, LeaderID uint64 // LeaderID 0 = none known
	Region                  string
	Term, Commit, Applied   uint64
	Role                    string // follower, candidate or leader
	Confirmed               bool   // a ReadIndex round has succeeded since the start
	Incarnation             string
	Members                 []Member // by id
	Voters                  []uint64
	VotersOutgoing          []uint64 // of the configuration that is being left
	Learners                []uint64
	Removed                 []uint64     // ids that are nobody's any more
	Replacement             *Replacement // that is under way; nil for none
	LowSpace                bool         // this member's disk is nearly full
	StateCheck              StateCheck
}

// A StateCheck is how far the members' states are known to be equal.
type StateCheck struct {
	Index     uint64   `json:"index"`     // they were compared as they are after this entry; 0 = not yet
	Equal     []uint64 `json:"equal"`     // have the state of a majority
	Different []uint64 `json:"different"` // have another
	Missing   []uint64 `json:"missing"`   // have not said yet
	Split     bool     `json:"split"`     // no state has a majority: nothing is written
}

// A Member is one line of the address book.
type Member struct {
	ID                     uint64
	HTTP, XDS, GRPC, Admin string // host:port
}

// Withheld is something registered that proxies are not told of.
type Withheld struct {
	Instance string // "" = the whole endpoint or service
	Endpoint string // "" = the whole service, or the whole instance
	Reason   string
}

// The bounds of the API.
const (
	bodyBytesMax        = 1 << 20
	requestsInflightMax = 4_096                   // the next is refused with 429
	readsInflightMax    = requestsInflightMax / 2 // of these: reads that wait, as they do while there is no leader, leave room for renewals and writes
	bodySmallMax        = 64 << 10                // as many calls may have a body of so much as may be in flight
	largeInflightMax    = 64                      // calls in flight whose body is larger, or who do not say how large it is: who never ends his holds that much memory
	batchBytesMax       = 4 << 20                 // of the body of a batch
	batchesInflightMax  = 64                      // for the sake of memory: each may have a body of that size
	requestTimeout      = 4 * time.Second         // the Java SDK gives up after 5 s
)

// limits are the bounds that tests make smaller.
type limits struct {
	inflight int64
	reads    int64
	timeout  time.Duration
	stall    time.Duration

	watches               int64
	watchStall, keepalive time.Duration
}

// New makes an API.
func New(c Config) (*API, error) {
	if c.Registry == nil || c.Cluster == nil {
		return nil, errors.New("httpapi: Config.Registry and Config.Cluster are required")
	}
	a := &API{
		registry: c.Registry, cluster: c.Cluster, xdsReady: c.XDSReady, withheld: c.Withheld, snapshot: c.Snapshot,
		membership: c.Membership, replicators: c.Replicators, federation: c.Federation, newToken: c.LeaseToken,
		token: c.AdminToken, access: c.Access, authority: c.Authority, stay: c.Stay, share: c.Share, place: c.Place, denied: c.Denied, openMetrics: c.OpenMetrics, audit: c.Audit, log: loggerOr(c.Logger), metrics: newMetrics(),
		limits: limits{
			inflight: requestsInflightMax, reads: readsInflightMax, timeout: requestTimeout, stall: writeTimeout,
			watches: watchesMax, watchStall: watchStall, keepalive: watchKeepalive,
		},
	}
	a.frames = newFrames(a.metrics.framesEncoded.Inc)
	a.stopping, a.stop = context.WithCancel(context.Background())
	if a.xdsReady == nil {
		a.xdsReady = func() error { return nil }
	}
	if a.newToken == nil {
		a.newToken = rand.Text
	}
	if a.withheld == nil {
		a.withheld = func(context.Context, registry.ServiceKey) []Withheld { return nil }
	}
	if a.denied == nil {
		a.denied = func(string, string, string) {}
	}
	if a.replicators == nil {
		a.replicators = func() []Replicator { return []Replicator{} }
	}
	if a.federation == nil {
		a.federation = func() Federation { return Federation{} }
	}
	a.proxies = c.Proxies
	if err := a.metrics.register(c.Registerer, &a.inflight); err != nil {
		return nil, fmt.Errorf("register the metrics of HTTP: %w", err)
	}
	pages := append(a.healthRoutes(), metricsRoutes(c.Gatherer)...)
	a.public = newRouter(a, surfaceV1, slices.Concat(a.v1Routes(), a.v2Routes(), a.proxyRoutes(), a.accessRoutes(), a.describedRoutes(), pages))
	a.admin = newRouter(a, surfaceAdmin, slices.Concat(a.adminRoutes(), a.accessRoutes(), pages))
	return a, nil
}

func loggerOr(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// Handler serves the HTTP port: v1, v2, health and metrics.
func (a *API) Handler() http.Handler { return a.public }

// AdminHandler serves the admin port: the status of this member, health and metrics.
func (a *API) AdminHandler() http.Handler { return a.admin }

// Routes are what both ports answer, each as method and pattern: a test that tries all of
// them as everybody has its list from here.
func (a *API) Routes() (public, admin []string) { return a.public.routes(), a.admin.routes() }
