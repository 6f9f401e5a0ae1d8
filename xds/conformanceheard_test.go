package xds

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// heard is what the clients have been told since the last command.
func (p *play) heard() string {
	var out strings.Builder
	for _, c := range p.clients {
		who := ""
		if len(p.clients) > 1 {
			who = c.name + " "
		}
		for _, line := range p.drain(c) {
			fmt.Fprintf(&out, "%s%s\n", who, line)
		}
	}
	if out.Len() == 0 {
		return "nothing"
	}
	return out.String()
}

func (p *play) drain(c *talker) (lines []string) {
	if p.delta {
		for _, m := range drain(c.delta.received) {
			lines = append(lines, p.showDelta(c, m))
		}
		return append(lines, c.ending(c.delta.ended)...)
	}
	for _, m := range drain(c.whole.received) {
		lines = append(lines, p.showWhole(c, m))
	}
	return append(lines, c.ending(c.whole.ended)...)
}

// drain takes what has come.
func drain[M any](r received[M]) (out []M) {
	for {
		select {
		case m, ok := <-r.messages:
			if !ok {
				return out
			}
			out = append(out, m)
		default:
			return out
		}
	}
}

func (c *talker) ending(ended chan error) []string {
	select {
	case err := <-ended:
		if c.done {
			return nil
		}
		c.done = true
		return []string{fmt.Sprintf("ended %s: %s", status.Code(err), status.Convert(err).Message())}
	default:
		return nil
	}
}

// showDelta is a response in a line: type, nonce, then each resource with the
// number of its content and its revision, what is gone behind a minus, and what
// could not be had behind an exclamation mark.
func (p *play) showDelta(c *talker, m *discoveryv3.DeltaDiscoveryResponse) string {
	short := shortOf(m.TypeUrl)
	c.last[short] = m.Nonce
	words := []string{short, m.Nonce}
	if m.SystemVersionInfo != strings.TrimPrefix(strings.Split(m.Nonce, ".")[0], "r") {
		p.t.Errorf("the nonce %s is not of revision %s", m.Nonce, m.SystemVersionInfo)
	}
	for _, r := range m.Resources {
		v, ok := parseDeltaVersion(r.Version)
		if !ok || v.incarnation != "i1" || r.Name != nameOf(p.t, r.Resource) {
			p.t.Errorf("%s has the version %q and is %s inside", r.Name, r.Version, nameOf(p.t, r.Resource))
		}
		if r.Ttl != nil {
			p.t.Errorf("%s lives for %v", r.Name, r.Ttl.AsDuration())
		}
		p.versions[short+" "+r.Name] = r.Version
		words = append(words, fmt.Sprintf("%s@%d%s", p.content(short, r.Name, v.hash), v.revision, p.inside(r.Resource)))
	}
	for _, name := range m.RemovedResources {
		words = append(words, "-"+name)
	}
	return strings.Join(append(words, errorsOf(m.ResourceErrors)...), " ")
}

// showWhole is the same as state of the world; the set of resources has a number too.
func (p *play) showWhole(c *talker, m *discoveryv3.DiscoveryResponse) string {
	short := shortOf(m.TypeUrl)
	c.last[short], p.versions[short] = m.Nonce, m.VersionInfo
	v, ok := parseWholeVersion(m.VersionInfo)
	if !ok || v.incarnation != "i1" {
		p.t.Errorf("a response has the version %q", m.VersionInfo)
	}
	words := []string{short, m.Nonce, p.content(short, fmt.Sprintf("v%d", v.revision), v.hash)}
	for _, packed := range m.Resources {
		name := nameOf(p.t, packed)
		words = append(words, p.content(short, name, xxhash.Sum64(packed.Value))+p.inside(packed))
	}
	return strings.Join(append(words, errorsOf(m.ResourceErrors)...), " ")
}

func errorsOf(of []*discoveryv3.ResourceError) (words []string) {
	for _, e := range of {
		words = append(words, fmt.Sprintf("!%s %s", e.GetResourceName().GetName(), codes.Code(e.GetErrorDetail().GetCode())))
	}
	return words
}

func shortOf(url string) string {
	t, ok := typeOf(url)
	if !ok {
		return url
	}
	return t.String()
}

// content is a name with the number of its content: the first that was seen is #1.
func (p *play) content(short, name string, hash uint64) string {
	key := short
	if name[0] != 'v' || strings.Contains(name, ".") {
		key += " " + name
	}
	n := slices.Index(p.contents[key], hash)
	if n < 0 {
		n = len(p.contents[key])
		p.contents[key] = append(p.contents[key], hash)
	}
	return fmt.Sprintf("%s#%d", name, n+1)
}

// chainsOf are the clusters that a gateway's listener leads to by itself.
func chainsOf(m *listenerv3.Listener) string {
	var names []string
	for _, chain := range m.FilterChains[1:] {
		names = append(names, chain.Name)
	}
	return "(" + strings.Join(names, " ") + ")"
}

// inside is what of a resource other types hang on: the hosts of endpoints, the clusters of
// routes, the routes of a gRPC client's listener, the chains of a gateway's. Every locality has a weight: gRPC clients pass over one without.
func (p *play) inside(packed *anypb.Any) string {
	message, err := packed.UnmarshalNew()
	if err != nil {
		p.t.Fatal(err)
	}
	var words []string
	switch m := message.(type) {
	case *endpointv3.ClusterLoadAssignment:
		for _, l := range m.Endpoints {
			if l.GetLoadBalancingWeight().GetValue() == 0 {
				p.t.Errorf("a locality of %s has no weight", m.ClusterName)
			}
			for _, e := range l.LbEndpoints {
				word := e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()
				if n := l.GetPriority(); n > 0 {
					word = fmt.Sprintf("%d:%s", n, word)
				}
				words = append(words, word)
			}
		}
	case *listenerv3.Listener:
		if m.Name == gatewayName {
			return chainsOf(m)
		}
		if m.ApiListener == nil {
			return ""
		}
		manager := new(hcmv3.HttpConnectionManager)
		if err := m.ApiListener.ApiListener.UnmarshalTo(manager); err != nil {
			p.t.Error(err)
		}
		words = append(words, manager.GetRds().GetRouteConfigName())
	case *routev3.RouteConfiguration:
		for _, host := range m.VirtualHosts {
			if cluster := host.Routes[0].GetRoute().GetCluster(); cluster != "" {
				words = append(words, cluster)
			}
		}
	default:
		return ""
	}
	return "(" + strings.Join(words, " ") + ")"
}

// status is what the member says of its clients.
func (p *play) status() string {
	var out strings.Builder
	for _, s := range p.member.server.Proxies() {
		for _, t := range s.Types {
			fmt.Fprintf(&out, "%s %s sent=%d acked=%d in-sync=%t silent=%t", s.Node, t.Type, t.Sent, t.Acked, t.InSync, t.Silent)
			for _, r := range t.Rejected {
				fmt.Fprintf(&out, " rejected=%s", r.Resource)
			}
			out.WriteByte('\n')
		}
	}
	return out.String()
}
