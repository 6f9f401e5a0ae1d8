package xds

import (
	"fmt"

	"github.com/stellmap/stellmap/registry"
)

// tell has a region tell of instances, tell east orders/101; gone has it tell that they are gone.
func (p *play) tell() {
	region, status, zone := p.d.CmdArgs[0].Key, registry.StatusPassing, ""
	for _, arg := range p.d.CmdArgs[1:] {
		switch arg.Key {
		case "gone":
			status = 0
		case "suspect":
			status = registry.StatusSuspect
		case "critical":
			status = registry.StatusCritical
		case "zone":
			zone = arg.Vals[0]
		}
	}
	p.instances(func(service string, n int) { p.member.tell(region, toldOf(service, n, zone, status)) })
}

// policy has a service treated as the input says.
func (p *play) policy() { p.member.putPolicy(p.t, p.d.CmdArgs[0].Key, p.d.Input) }

// addInZone registers an instance in a zone.
func (m *member) addInZone(service string, n int, zone string) {
	m.register(registry.Registration{Namespace: "prod", Service: service, ID: fmt.Sprint(n), Zone: zone, Endpoints: []registry.Endpoint{at("http", "http", addressOf(n), 80, 100)}})
}
