package registry

import (
	"cmp"
	"slices"
)

// Why an expired instance is kept in view.
//
// When half of a region's instances die, Envoy should send part of the traffic
// to another region. It reckons the health of a priority as the healthy share
// of the hosts it is told of, so taking the dead ones away makes the rest look
// like a whole: nothing spills, and the survivors carry everything. So the dead
// stay in view as unhealthy placeholders, as many as the service seems to lack.
//
// What it seems to need is its baseline: the highest count of standing instances
// (those that have neither expired nor been disabled), halved for every hour in
// which it was not reached again. It never falls below what stands now.
// What is critical or draining stands: it is in view itself, and a placeholder for
// it would count it twice. Replacements count, so they retire placeholders without further ado; one at the
// very address of a dead instance retires that one.

// shown picks what is in view from instances sorted by id. Those of other regions that
// have expired are in view as long as their region has them: it alone knows its baseline.
func shown(instances []*Instance, standing, baseline int) []*Instance {
	if standing == len(instances) {
		return instances
	}
	kept := placeholders(own(instances), baseline-standing)
	out := make([]*Instance, 0, len(instances))
	for _, i := range instances {
		if _, keep := kept[i]; keep || i.Status.standing() || i.Imported != nil && i.Status == StatusExpired {
			out = append(out, i)
		}
	}
	return out
}

// placeholders are the newest expired instances, as many as there is room for,
// each at an address that no standing instance and no newer placeholder has.
func placeholders(instances []*Instance, room int) map[*Instance]struct{} {
	if room <= 0 {
		return nil
	}
	taken := make(map[hostPort]struct{})
	var expired []*Instance
	for _, i := range instances {
		switch {
		case i.Status.standing():
			i.take(taken)
		case i.Status == StatusExpired:
			expired = append(expired, i)
		}
	}
	slices.SortFunc(expired, func(a, b *Instance) int {
		return cmp.Or(cmp.Compare(b.ExpiredAt, a.ExpiredAt), cmp.Compare(a.ID, b.ID))
	})
	kept := make(map[*Instance]struct{}, min(room, len(expired)))
	for _, i := range expired {
		if len(kept) == room {
			break
		}
		if !i.replaced(taken) {
			i.take(taken)
			kept[i] = struct{}{}
		}
	}
	return kept
}

type hostPort struct {
	host string
	port int32
}

func (i *Instance) take(taken map[hostPort]struct{}) {
	for _, e := range i.Endpoints {
		taken[hostPort{e.Host, e.Port}] = struct{}{}
	}
}

func (i *Instance) replaced(taken map[hostPort]struct{}) bool {
	return slices.ContainsFunc(i.Endpoints, func(e Endpoint) bool {
		_, ok := taken[hostPort{e.Host, e.Port}]
		return ok
	})
}
