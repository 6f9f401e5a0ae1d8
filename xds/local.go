package xds

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stellmap/stellmap/registry"
)

// A service whose policy names a local port has a listener there at each Envoy whose
// scope has the service. What enters is passed on to the service's cluster as it is, so
// that this is the way to a service that does not speak HTTP. Of two services of a scope
// that name one port the older has it, as with names, and the other says so in describe.

const (
	localPrefix = "tcp~" // before the cluster's name; clusters of endpoints and subsets are none of these

	// How often a connection is tried that a host does not take, each time with the choice of another.
	localConnectAttempts = 1 + retries
)

func localName(cluster string) string { return localPrefix + cluster }

// localPort is where the policy of a service has it listen; 0 for none.
func localPort(s *registry.Service) uint32 {
	if s.Policy == nil || s.Policy.LocalPort == nil {
		return 0
	}
	return uint32(*s.Policy.LocalPort)
}

// locals are the listeners of a scope beside the one for HTTP. Guarded by cache.mu.
type locals struct {
	scope   *scope
	ports   map[uint32][]*claim // who names a port; the owner is first
	entered map[string]uint32   // the port under which a cluster stands in ports

	resources map[string]*resource // the owners' listeners by name; nil while no stream asks for all
	wildcard  map[*subscription]struct{}
}

func newLocals(s *scope) *locals {
	return &locals{scope: s, ports: make(map[uint32][]*claim), entered: make(map[string]uint32), wildcard: make(map[*subscription]struct{})}
}

// mark passes a change of a listener on to the streams that asked for all.
func (l *locals) mark(name string, n *notice) {
	for sub := range l.wildcard {
		sub.mark(name, n)
	}
}

// each goes through the streams that asked for all.
func (l *locals) each(f func(*subscription)) {
	for sub := range l.wildcard {
		f(sub)
	}
}

// owner is who has a port; nil = nobody.
func (l *locals) owner(port uint32) *claim {
	if rivals := l.ports[port]; len(rivals) > 0 {
		return rivals[0]
	}
	return nil
}

// localize makes the listeners of a scope agree with its members, as far as one cluster
// is concerned, and gives those that came or went. Caller holds cache.mu.
func (c *cache) localize(s *scope, cluster string) []string {
	if s.kind != kindEnvoy {
		return nil
	}
	l, member, port := s.locals, s.members[cluster], uint32(0)
	if member != nil && member.endpoint == 0 && member.subset == "" {
		port = member.listing.port
	}
	before := l.entered[cluster]
	had := l.owners(before, port)
	l.leave(before, cluster)
	l.enter(port, member)
	has := l.owners(before, port)
	var changed []string
	for _, one := range had {
		if !slices.Contains(has, one) {
			changed = append(changed, c.closeLocal(l, one))
		}
	}
	for _, one := range has {
		if !slices.Contains(had, one) {
			changed = append(changed, c.openLocal(l, one))
		}
	}
	return changed
}

// localizeAll is localize for all clusters of a service.
func (c *cache) localizeAll(s *scope, l *listing) []string {
	var changed []string
	for _, claim := range l.claims {
		changed = append(changed, c.localize(s, claim.cluster)...)
	}
	return changed
}

// owners are the clusters that have some ports.
func (l *locals) owners(ports ...uint32) []string {
	var out []string
	for _, port := range ports {
		if one := l.owner(port); one != nil && !slices.Contains(out, one.cluster) {
			out = append(out, one.cluster)
		}
	}
	return out
}

func (l *locals) leave(port uint32, cluster string) {
	if port == 0 {
		return
	}
	delete(l.entered, cluster)
	l.ports[port] = slices.DeleteFunc(l.ports[port], func(one *claim) bool { return one.cluster == cluster })
	if len(l.ports[port]) == 0 {
		delete(l.ports, port)
	}
}

func (l *locals) enter(port uint32, member *claim) {
	if port == 0 {
		return
	}
	l.entered[member.cluster] = port
	l.ports[port] = append(l.ports[port], member)
	slices.SortFunc(l.ports[port], compareClaims)
}

func (c *cache) openLocal(l *locals, cluster string) string {
	name := localName(cluster)
	if l.resources != nil {
		l.resources[name] = c.subscribeLocked(localKey(name), l)
	}
	return name
}

func (c *cache) closeLocal(l *locals, cluster string) string {
	name := localName(cluster)
	if r := l.resources[name]; r != nil {
		c.unsubscribeLocked(r, l)
		delete(l.resources, name)
	}
	return name
}

func localKey(name string) resourceKey {
	return resourceKey{typ: typeListener, name: name, kind: kindEnvoy}
}

// watchLocals adds a stream that asks for all listeners, and gives their names.
func (c *cache) watchLocals(s *scope, sub *subscription) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := s.locals
	l.wildcard[sub] = struct{}{}
	if l.resources == nil {
		l.resources = make(map[string]*resource, len(l.ports))
		for _, rivals := range l.ports {
			c.openLocal(l, rivals[0].cluster)
		}
	}
	return l.names(sub)
}

func (c *cache) unwatchLocals(s *scope, sub *subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := s.locals
	delete(l.wildcard, sub)
	if len(l.wildcard) > 0 {
		return
	}
	for _, r := range l.resources {
		c.unsubscribeLocked(r, l)
	}
	l.resources = nil
}

// names are the listeners that a stream is told of: not on the port where it has its HTTP.
func (l *locals) names(sub *subscription) []string {
	names := make([]string, 0, len(l.ports))
	for port, rivals := range l.ports {
		if port != sub.stream.node.egressPort {
			names = append(names, localName(rivals[0].cluster))
		}
	}
	return names
}

// localsIn are the names of all such listeners.
func (c *cache) localsIn(s *scope, sub *subscription) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return s.locals.names(sub)
}

// localIn finds such a listener; nil where the stream is told of none.
func (c *cache) localIn(s *scope, sub *subscription, name string) *resource {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if s.locals.entered[strings.TrimPrefix(name, localPrefix)] == sub.stream.node.egressPort {
		return nil
	}
	return s.locals.resources[name]
}

// withheldLocal says who has the port that a service names, at proxies of this member.
func (c *cache) withheldLocal(ctx context.Context, s *registry.Service) []Withheld {
	port := localPort(s)
	rivals, egress := c.rivalsAt(port, s.Key)
	var out []Withheld
	for rival, proxies := range rivals {
		out = append(out, Withheld{Service: s.Key, Reason: reasonPort(port, rival.NameFor(ctx), proxies)})
	}
	if egress > 0 {
		out = append(out, Withheld{Service: s.Key, Reason: reasonPort(port, "HTTP", egress)})
	}
	slices.SortFunc(out, func(a, b Withheld) int { return strings.Compare(a.Reason, b.Reason) })
	return out
}

// rivalsAt are those who have a port in the place of a service, each at so many proxies; HTTP
// has it at those of egress.
func (c *cache) rivalsAt(port uint32, k registry.ServiceKey) (rivals map[registry.ServiceKey]int, egress int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	listing := c.directory.services[k]
	if port == 0 || listing == nil || len(listing.claims) == 0 {
		return nil, 0
	}
	rivals = make(map[registry.ServiceKey]int)
	for _, scope := range c.scopesOf(listing) {
		owner := scope.locals.owner(port)
		if owner == nil {
			continue
		}
		for sub := range scope.locals.wildcard {
			switch {
			case sub.stream.node.egressPort == port:
				egress++
			case owner.listing != listing:
				rivals[owner.listing.key]++
			}
		}
	}
	return rivals, egress
}

func reasonPort(port uint32, whose string, proxies int) string {
	where := "1 proxy of this member, which has"
	if proxies != 1 {
		where = fmt.Sprintf("%d proxies of this member, which have", proxies)
	}
	return fmt.Sprintf("local port %d is that of %s already at %s no listener for this service: name another localPort in its policy", port, whose, where)
}

// buildLocal is where connections to a service enter its callers' proxies.
func buildLocal(cluster string, port uint32) (*listenerv3.Listener, error) {
	proxy, err := tcpProxy(cluster)
	if err != nil {
		return nil, err
	}
	return &listenerv3.Listener{
		Name:             localName(cluster),
		Address:          socketAddress(egressAddress, port),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		FilterChains:     []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{proxy}}},
	}, nil
}

// tcpProxy is the end of a chain that passes connections on to a cluster as they are.
func tcpProxy(cluster string) (*listenerv3.Filter, error) {
	proxy, err := pack(&tcpv3.TcpProxy{
		StatPrefix:         statName(cluster),
		ClusterSpecifier:   &tcpv3.TcpProxy_Cluster{Cluster: cluster},
		MaxConnectAttempts: wrapperspb.UInt32(localConnectAttempts),
	})
	if err != nil {
		return nil, fmt.Errorf("TCP proxy: %w", err)
	}
	return &listenerv3.Filter{
		Name:       "envoy.filters.network.tcp_proxy",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: proxy},
	}, nil
}
