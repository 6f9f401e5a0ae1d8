package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// In failover mode gateway the clients of a service reach other regions' instances by way
// of gateways, which are registered in those regions as instances of a service of their own.

// gatewayDefault is the service of gateways where a policy names none: that of its namespace.
const gatewayDefault = "gateway"

// GatewayProtocol is what a gateway is registered with, which takes HTTP and TLS alike. Nothing of that
// protocol can be passed on, so that no call goes from gateway to gateway.
const GatewayProtocol = "tcp"

// gatewayProtocols are those that say where to: HTTP by its host, TLS by the name that it asks for.
var gatewayProtocols = []string{"http", "h2c", "grpc", "https", "tls"}

// PassesGateways says whether a gateway can pass on what speaks a protocol.
func PassesGateways(protocol string) bool { return slices.Contains(gatewayProtocols, protocol) }

// GatewayOf is the service whose instances lead to other regions' of the service of this
// policy; false where none do.
func (p *Policy) GatewayOf(k ServiceKey) (ServiceKey, bool) { return p.gatewayOf(k, "") }

// gatewayOf is GatewayOf in a mode that a request names in place of the policy's.
func (p *Policy) gatewayOf(k ServiceKey, mode string) (ServiceKey, bool) {
	if mode == "" {
		mode = p.FailoverMode()
	}
	if mode != FailoverGateway {
		return ServiceKey{}, false
	}
	f := p.failover()
	at := strings.LastIndexByte(f.Gateway, '.')
	if at < 0 {
		return ServiceKey{Namespace: k.Namespace, Service: gatewayDefault}, true
	}
	return ServiceKey{Namespace: f.Gateway[at+1:], Service: f.Gateway[:at]}, true
}

// permitGateways holds who writes a policy to what he may read: all who are given the service
// are given the gateways that it names. What another has named stays.
func (r *Registry) permitGateways(ctx context.Context, k ServiceKey, p *Policy) error {
	by, named := p.gatewayOf(k, "")
	if !named || p.failover().Gateway == "" {
		return nil
	}
	if document, _ := readDocument(r.machine, policyShelf(k)); document.Content() != nil {
		if was, did := document.Content().gatewayOf(k, ""); did && was == by {
			return nil
		}
	}
	return Permit(ctx, Ask{Verb: VerbRead, Resource: ResourceInstances, Namespace: by.Namespace, Service: by.Service})
}

// GatewaysClosed is why the gateways of a service cannot lead to what speaks a protocol; "" if they can.
func GatewaysClosed(protocol string, by ServiceKey, gateways *Service) string {
	switch {
	case !PassesGateways(protocol):
		return NoWayByGateways
	case gateways == nil || len(gateways.Endpoints) == 0:
		return fmt.Sprintf("there is no service %s in namespace %s to be the gateways", by.Service, by.Namespace)
	case gateways.Endpoints[0].Protocol != GatewayProtocol:
		return fmt.Sprintf("service %s in namespace %s has protocol %s, and gateways have %s", by.Service, by.Namespace, gateways.Endpoints[0].Protocol, GatewayProtocol)
	}
	return ""
}

// NoWayByGateways is why gateways do not lead to what speaks some protocol.
const NoWayByGateways = "this service speaks neither HTTP nor TLS, and nothing else tells a gateway where to"

// A Passage says to which other regions of a service gateways lead. A region where none of the service's
// instances can be called has no place for gateways, so that calls go on to the next; and one whose gateways
// cannot be called is not there.
type Passage struct {
	By     ServiceKey      // the gateways' service
	Closed string          // why they lead nowhere; "" = they do
	Wanted map[string]bool // regions, the client's left out, with an instance that can be called
	Open   map[string]bool // regions with a gateway that can be
}

// Leads says whether calls go to a region, by its gateways.
func (p *Passage) Leads(region string) bool {
	return p.Closed == "" && p.Wanted[region] && p.Open[region]
}

// Missing is, by region that calls would go to, why they do not.
func (p *Passage) Missing() map[string]string {
	out := make(map[string]string)
	for region := range p.Wanted {
		switch {
		case p.Closed != "":
			out[region] = p.Closed
		case !p.Open[region]:
			out[region] = fmt.Sprintf("service %s in namespace %s has no instance there that can be called", p.By.Service, p.By.Namespace)
		}
	}
	return out
}

// Instead is the service for clients of a region, with gateways in the place of other regions' instances.
func (s *Service) Instead(region string, gateways []*Instance) *Service {
	out := *s
	out.Shown = slices.DeleteFunc(slices.Clone(s.Shown), func(i *Instance) bool { return i.Region != region })
	out.Shown = append(out.Shown, gateways...)
	slices.SortStableFunc(out.Shown, func(a, b *Instance) int { return strings.Compare(a.ID, b.ID) }) // it is searched by id
	return &out
}

// HostSuffix is what a host may end in by which a service is called.
const HostSuffix = ".mesh"

// Stem is what the hosts of an endpoint of a service begin with, by its place among those of the
// service: in lower case, since hosts are compared so.
func (k ServiceKey) Stem(endpoint int, name string) string {
	stem := k.Service + "." + k.Namespace
	if endpoint > 0 {
		stem = name + "--" + stem
	}
	return strings.ToLower(stem)
}

// Authority is by which host, or SNI, a gateway knows an endpoint.
func (k ServiceKey) Authority(endpoint int, name string) string {
	if endpoint > 0 {
		return k.Stem(endpoint, name) + HostSuffix
	}
	return k.Stem(0, "")
}

// checkGateway is about the gateways of a policy, which has its final form.
func (p *Policy) checkGateway(bad *problems) {
	f := p.failover()
	at := strings.LastIndexByte(f.Gateway, '.')
	switch {
	case f.Gateway != "" && (at < 0 || !isName(f.Gateway[:at], ".-_") || !isName(f.Gateway[at+1:], "-_")):
		bad.add("failover.gateway", fmt.Sprintf("%s is not allowed: a service and its namespace with a dot between, such as gateway.infra", quoted(f.Gateway)))
	case f.Gateway != "" && f.Mode != FailoverGateway:
		bad.add("failover.gateway", "is for failover.mode gateway: set that as well")
	}
	if e := p.PrimaryEndpoint; f.Mode == FailoverGateway && e != nil && e.Protocol != "" && !PassesGateways(e.Protocol) {
		bad.add("failover.mode", fmt.Sprintf("gateway is for what says where to, and %s, by primaryEndpoint.protocol, does not: %s do", e.Protocol, strings.Join(gatewayProtocols, ", ")))
	}
}
