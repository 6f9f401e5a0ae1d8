package grpcapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/stellmap/stellmap/access/audit"
	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

// An API serves one member's registry over gRPC.
type API struct {
	registry *registry.Registry
	home     func() registry.CursorHome
	around   func() registry.Neighbours
	operator func(authorization string) bool
	newToken func() string
	audit    *audit.Log
	log      *slog.Logger
	metrics  *metrics
	limits   limits
	life     context.Context // over when streams have to end
	end      context.CancelFunc
	shared   encodings

	inflight atomic.Int64 // calls that hold a slot
	lists    atomic.Int64 // those of them that are lists
	renewals atomic.Int64 // open streams of renewals
	watches  atomic.Int64 // open watches
}

// Config is what the API needs.
type Config struct {
	Registry   *registry.Registry              // required
	CursorHome func() registry.CursorHome      // required: where cursors of this member are good
	Neighbours func() registry.Neighbours      // what the settings say of other regions; nil = there are none
	Operator   func(authorization string) bool // whether an authorization header is an operator's; nil = nobody's is
	Audit      *audit.Log                      // where calls are recorded; nil = nowhere
	LeaseToken func() string                   // makes lease tokens that nobody can guess; nil = at random
	Logger     *slog.Logger                    // nil = none
	Registerer prometheus.Registerer           // nil = none
}

// The bounds of the API. Those of a connection are the server's.
const (
	callsInflightMax = 4_096 // the next is refused
	listsInflightMax = 256   // each may keep what it has found until the client has read it
	renewStreamsMax  = 10_000
	watchesMax       = 20_000
	callTimeout      = 4 * time.Second  // for a call, and for each request on a stream of renewals: as over HTTP
	listTimeout      = 60 * time.Second // from the call to the answer's last byte: a long list to a slow reader
	partBytesMax     = 1 << 20          // an item more than that is put into a part of a list; clients take 4 MiB
	sendTimeout      = 30 * time.Second // for a client to take one message of a stream
	discoverBytesMax = 2 << 20          // of the instances of a discovery: clients take 4 MiB
	progressEvery    = 10 * time.Second // at the latest a watch says how far it has come
)

// limits are the bounds that tests make smaller.
type limits struct {
	calls, lists, streams, watches int64
	call, list, send, progress     time.Duration
	partBytes, discoverBytes       int
}

// New makes an API.
func New(c Config) (*API, error) {
	if c.Registry == nil || c.CursorHome == nil {
		return nil, errors.New("grpcapi: Config.Registry and Config.CursorHome are required")
	}
	a := &API{
		registry: c.Registry, home: c.CursorHome, around: c.Neighbours, operator: c.Operator, newToken: c.LeaseToken, audit: c.Audit, log: c.Logger,
		metrics: newMetrics(),
		limits: limits{
			calls: callsInflightMax, lists: listsInflightMax, streams: renewStreamsMax, watches: watchesMax,
			call: callTimeout, list: listTimeout, send: sendTimeout, progress: progressEvery, partBytes: partBytesMax, discoverBytes: discoverBytesMax,
		},
	}
	a.life, a.end = context.WithCancel(context.Background())
	a.shared.made = a.metrics.encoded
	if a.around == nil {
		a.around = func() registry.Neighbours { return registry.Neighbours{} }
	}
	if a.operator == nil {
		a.operator = func(string) bool { return false }
	}
	if a.newToken == nil {
		a.newToken = rand.Text
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if err := a.metrics.register(c.Registerer, &a.inflight, &a.renewals, &a.watches); err != nil {
		return nil, fmt.Errorf("register the metrics of gRPC: %w", err)
	}
	return a, nil
}

// Service is the name that clients call, and ask the health of.
const Service = "stellmap.v1.RegistryService"

// A service is the API in the form of the generated code.
type service struct {
	stellmapv1.UnimplementedRegistryServiceServer
	api *API
}

// Register has a server answer for the registry.
func (a *API) Register(s grpc.ServiceRegistrar) {
	stellmapv1.RegisterRegistryServiceServer(s, &service{api: a})
}

// Run ends the streams when the context does: without that a server that waits
// for its calls would wait for ever.
func (a *API) Run(ctx context.Context) error {
	<-ctx.Done()
	a.end()
	return nil
}
