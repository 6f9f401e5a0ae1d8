package registry

import (
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
func (p *Policy) GatewayOf(k ServiceKey) (ServiceKey, bool) {
	if p.FailoverMode() != FailoverGateway {
		return ServiceKey{}, false
	}
	f := p.failover()
	at := strings.LastIndexByte(f.Gateway, '.')
	if at < 0 {
		return ServiceKey{Namespace: k.Namespace, Service: gatewayDefault}, true
	}
	return ServiceKey{Namespace: f.Gateway[at+1:], Service: f.Gateway[:at]}, true
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
