package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/resolver"
)

// Scheme is that of targets for grpc-go.
const Scheme = "stellmap"

// Resolver is for grpc.WithResolvers: connections to stellmap:///orders, or in another
// namespace stellmap:///prod/orders, then go to the instances of that service, as a Picker
// would pick them. A query chooses further:
//
//	stellmap:///prod/orders?endpoint=internal&version=2&group=blue&selector=track%3Dstable
//
// Without endpoint it is the one named grpc, or of the protocol grpc, or else h2c. The
// authority of such a connection is orders.prod, as it is in the mesh.
//
// A connection lives on the client's watch: close the connection before the client.
func (c *Client) Resolver() resolver.Builder { return builder{c} }

type builder struct{ client *Client }

func (builder) Scheme() string { return Scheme }

// OverrideAuthority names the service and not the path of the target.
func (b builder) OverrideAuthority(t resolver.Target) string {
	a, err := b.client.parseTarget(t.URL)
	if err != nil {
		return "" // Build says why
	}
	return a.query.Service + "." + a.query.Namespace
}

func (b builder) Build(t resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	asked, err := b.client.parseTarget(t.URL)
	if err != nil {
		return nil, err
	}
	r := &resolution{client: b.client, asked: asked, conn: cc}
	var ctx context.Context
	ctx, r.end = context.WithCancel(b.client.life)
	r.group.Go(func() { r.run(ctx) })
	return r, nil
}

// asked is what a target asks for.
type asked struct {
	query    Query
	endpoint string // "" = one that speaks gRPC
}

// parseTarget tells all that is wrong with a target.
func (c *Client) parseTarget(u url.URL) (asked, error) {
	a := asked{query: Query{Namespace: c.config.Namespace}}
	var bad []error
	if u.Host != "" {
		bad = append(bad, fmt.Errorf("%q stands where an authority does: the servers are the client's, so leave it empty, %s:///%s", u.Host, Scheme, strings.TrimPrefix(u.Path, "/")))
	}
	name := strings.TrimPrefix(u.Path, "/")
	if namespace, service, ok := strings.Cut(name, "/"); ok {
		a.query.Namespace, name = namespace, service
	}
	if a.query.Service = name; name == "" || a.query.Namespace == "" || strings.Contains(name, "/") {
		bad = append(bad, fmt.Errorf("%q is no service: %s:///service or %s:///namespace/service", u.Path, Scheme, Scheme))
	}
	into := map[string]*string{"endpoint": &a.endpoint, "version": &a.query.Version, "group": &a.query.Group, "selector": &a.query.Selector}
	for name, values := range u.Query() {
		if into[name] == nil || len(values) != 1 {
			bad = append(bad, fmt.Errorf("%q is unknown, or is there %d times: endpoint, group, selector, version, each once", name, len(values)))
			continue
		}
		*into[name] = values[0]
	}
	if len(bad) > 0 {
		return a, fmt.Errorf("client: target %s: %w", u.Redacted(), errors.Join(bad...))
	}
	return a, nil
}

// A resolution tells a connection of grpc-go what is known of a service.
type resolution struct {
	client *Client
	asked  asked
	conn   resolver.ClientConn
	end    context.CancelFunc
	group  sync.WaitGroup
}

// ResolveNow has nothing to hurry: what changes is told at once.
func (*resolution) ResolveNow(resolver.ResolveNowOptions) {}

func (r *resolution) Close() {
	r.end()
	r.group.Wait()
}

// run tells until the connection, or the client, is closed.
func (r *resolution) run(ctx context.Context) {
	service, err := r.client.Discover(ctx, r.asked.query)
	if err != nil {
		r.conn.ReportError(err)
		return
	}
	config := r.conn.ParseServiceConfig(fmt.Sprintf(`{"loadBalancingConfig":[{%q:{}}]}`, policy))
	for latest := range service.Updates(ctx) {
		state := r.state(latest)
		state.ServiceConfig = config
		// An error is that there is nobody to send anything to, which the calls are told.
		if err := r.conn.UpdateState(state); err != nil {
			r.client.log.Debug("a connection has nobody to go to", "service", r.asked.query.String(), "error", err)
		}
	}
	if err := service.Close(); err != nil {
		r.client.log.Warn("a service could not be saved", "error", err)
	}
}

// speaksGRPC are the endpoints that are taken where none is named, the first that an
// instance has.
var speaksGRPC = []string{"grpc", "h2c"}

// state is what grpc-go is told of a snapshot: those that may be sent something, and, for
// our policy, all.
func (r *resolution) state(now Snapshot) resolver.State {
	all := &picks{number: now.number}
	var state resolver.State
	for _, i := range now.Instances {
		e, ok := r.endpoint(i)
		if !ok {
			continue
		}
		one := Pick{i, e}
		all.all = append(all.all, one)
		if i.standing() >= last && !slices.ContainsFunc(state.Endpoints, func(o resolver.Endpoint) bool { return o.Addresses[0].Addr == one.Address() }) {
			state.Endpoints = append(state.Endpoints, resolver.Endpoint{
				Addresses:  []resolver.Address{{Addr: one.Address()}},
				Attributes: attributes.New(pickKey{}, one),
			})
		}
	}
	state.Attributes = attributes.New(picksKey{}, &placed{picks: all, zone: r.client.config.Zone, region: r.client.config.Region})
	return state
}

func (r *resolution) endpoint(i *Instance) (Endpoint, bool) {
	if r.asked.endpoint != "" {
		return i.Endpoint(r.asked.endpoint)
	}
	for _, name := range speaksGRPC {
		if e, ok := i.Endpoint(name); ok {
			return e, true
		}
	}
	return Endpoint{}, false
}

// pickKey is the attribute of an endpoint that says what it is.
type pickKey struct{}

// PickOf is the instance and endpoint, with its weight and zone, that a resolver.Endpoint
// of ours stands for, for balancers of others.
func PickOf(e resolver.Endpoint) (Pick, bool) {
	p, ok := e.Attributes.Value(pickKey{}).(Pick)
	return p, ok
}
