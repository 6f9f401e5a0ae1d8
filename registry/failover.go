package registry

import (
	"fmt"
	"slices"
	"strings"
)

// Whom a client calls first, where a service is in several regions.
//
// One function says so for everybody, proxies and those who ask alike: it gives each
// instance the number of its group. The first group is called as far as it can take the
// calls, and the next take what is left. A policy has the say, and a request may name
// another mode; whoever has no say has his own region first, and the others behind it.

// Failover is when a region's traffic goes to the next, and to which.
type Failover struct {
	// OverprovisioningPercent is how far the healthy instances of a region may stand in for the others: at 140 until under 72 % are healthy.
	OverprovisioningPercent *int64 `json:"overprovisioningPercent,omitempty"`
	Mode                    string `json:"mode,omitempty"` // one of FailoverModes; "" = remote-fallback
	// Regions is in which order regions are called, behind the client's own; those that it does not name come after.
	Regions []string `json:"regions,omitempty"`
	// MinPassing is, of local-first, below how many passing instances of the client's region the others are told of.
	MinPassing *int64 `json:"minPassing,omitempty"`
	// ZoneFirst has the client's zone be called before the rest of its region, while it has its share.
	ZoneFirst bool `json:"zoneFirst,omitempty"`
	// AllOrNothing has a region take all calls or none, instead of as many as it can.
	AllOrNothing bool `json:"allOrNothing,omitempty"`
	// MinHealthyPercent is, of allOrNothing, below which share of healthy instances a region is left; nil = when none is healthy.
	MinHealthyPercent *int64 `json:"minHealthyPercent,omitempty"`
	// StaleAfterSeconds is from which age of a region's copy on Stale is done with its instances, see stale.go.
	StaleAfterSeconds *int64 `json:"staleAfterSeconds,omitempty"`
	Stale             string `json:"stale,omitempty"`
	// Gateway is, of mode gateway, the service whose instances are the gateways, as service.namespace; "" = service gateway of the same namespace.
	Gateway string `json:"gateway,omitempty"`
}

// The modes of failover.
const (
	FailoverLocalOnly      = "local-only"      // the client's region alone
	FailoverLocalFirst     = "local-first"     // the others only while the client's has too few passing
	FailoverRemoteFallback = "remote-fallback" // the others behind the client's
	FailoverMerged         = "merged"          // all regions alike
	FailoverGateway        = "gateway"         // as remote-fallback, by way of the gateways of the others
)

// FailoverModes are the modes, for who reads one.
var FailoverModes = []string{FailoverLocalOnly, FailoverLocalFirst, FailoverRemoteFallback, FailoverMerged, FailoverGateway}

// FailoverPolicy stands, in a request, for the mode of the policy.
const FailoverPolicy = "policy"

// FailoverChoices are what a request may name.
var FailoverChoices = append([]string{FailoverPolicy}, FailoverModes...)

const (
	overprovisioningDefault = 140
	overprovisioningMax     = 1_000
	minPassingDefault       = 1
)

func (f *Failover) normalize(bad *problems) *Failover {
	if f = section(f); f == nil {
		return nil
	}
	out := *f
	out.Regions, out.Gateway = nil, strings.TrimSpace(f.Gateway)
	within(f.OverprovisioningPercent, "failover.overprovisioningPercent", 100, overprovisioningMax, bad)
	within(f.MinPassing, "failover.minPassing", 1, policyLimitMax, bad)
	within(f.MinHealthyPercent, "failover.minHealthyPercent", 1, 100, bad)
	switch {
	case f.Mode != "" && !slices.Contains(FailoverModes, f.Mode):
		bad.add("failover.mode", fmt.Sprintf("%s is not known: %s", quoted(f.Mode), strings.Join(FailoverModes, ", ")))
	}
	for i, name := range f.Regions {
		name = strings.TrimSpace(name)
		at := fmt.Sprintf("failover.regions[%d]", i)
		switch {
		case !isName(name, ".-_"):
			bad.add(at, fmt.Sprintf("%s is not allowed: %s", quoted(name), nameRule))
		case slices.Contains(out.Regions, name):
			bad.add(at, fmt.Sprintf("%s stands there twice: name each region once", quoted(name)))
		}
		out.Regions = append(out.Regions, name)
	}
	if len(f.Regions) > regionsMax {
		bad.add("failover.regions", fmt.Sprintf("has %d regions: at most %d", len(f.Regions), regionsMax))
	}
	f.contradictions(bad)
	f.checkStale(bad)
	return section(&out)
}

// contradictions are what one field says against another, or to no effect.
func (f *Failover) contradictions(bad *problems) {
	local, merged := f.Mode == FailoverLocalOnly, f.Mode == FailoverMerged
	if len(f.Regions) > 0 && (local || merged) {
		bad.add("failover.regions", fmt.Sprintf("is an order, and failover.mode %s has none: leave one of the two out", f.Mode))
	}
	if f.AllOrNothing && (local || merged) {
		bad.add("failover.allOrNothing", fmt.Sprintf("is when calls go to the next region, and with failover.mode %s none is the next: leave one of the two out", f.Mode))
	}
	if f.ZoneFirst && merged {
		bad.add("failover.zoneFirst", "is an order, and failover.mode merged has none: leave one of the two out")
	}
	if f.MinPassing != nil && f.Mode != FailoverLocalFirst {
		bad.add("failover.minPassing", "is for failover.mode local-first: set that as well")
	}
	if f.MinHealthyPercent != nil && !f.AllOrNothing {
		bad.add("failover.minHealthyPercent", "is for failover.allOrNothing: set that as well")
	}
	if f.AllOrNothing && f.OverprovisioningPercent != nil {
		bad.add("failover.overprovisioningPercent", "is how much of the calls a region can take, and failover.allOrNothing has it take all: use failover.minHealthyPercent")
	}
}

// failover is what a policy says of it; of none the defaults.
func (p *Policy) failover() Failover {
	if p == nil || p.Failover == nil {
		return Failover{}
	}
	return *p.Failover
}

// FailoverMode is the mode of a policy.
func (p *Policy) FailoverMode() string {
	if mode := p.failover().Mode; mode != "" {
		return mode
	}
	return FailoverRemoteFallback
}

// AsksForZones says whether it matters in which zone a client is.
func (p *Policy) AsksForZones() bool { return p.failover().ZoneFirst }

// minPassing is below how many passing instances of the client's region local-first looks at others.
func (f *Failover) minPassing() int64 { return valueOr(f.MinPassing, minPassingDefault) }

// MinPassing is that of a policy's failover.
func (p *Policy) MinPassing() int64 { f := p.failover(); return f.minPassing() }

func valueOr(n *int64, otherwise int64) int64 {
	if n == nil {
		return otherwise
	}
	return *n
}

// A Standpoint is where a client is.
type Standpoint struct {
	Region, Zone string
	Mode         string   // in place of the policy's; "" = as the policy has it
	Order        []string // of regions, behind those that the policy names: as this registry is set
}

// A Candidate is an instance that might be called.
type Candidate struct {
	Region, Zone string
	Weight       uint64
	Healthy      bool // passing or warning, or handed out as if it were
	Leaving      bool // draining: it does not count
}

// A Rank is in which group each candidate is.
type Rank struct {
	Groups []Group // in the order in which they are called; none is empty
	Of     []int   // the group of each candidate, as an index; -1 = it is in none, and the client is not told of it
}

// A Group are candidates that are called alike.
type Group struct {
	Region string // "" = of all regions
	Zone   string // the client's, where that comes first; "" = all zones, but for one with a group of its own
	Rest   bool   // of the client's region, whose own zone comes first
}

// Rank says whom a client at some place calls first. It depends on nothing else, so that
// all members say the same.
func (p *Policy) Rank(at Standpoint, all []Candidate) Rank {
	f := p.failover()
	if at.Mode != "" {
		f.Mode = at.Mode
	}
	out := Rank{Of: make([]int, len(all))}
	if f.Mode == FailoverMerged {
		if len(all) > 0 {
			out.Groups = []Group{{}}
		}
		return out
	}
	regions := f.regions(at, all)
	zoned := f.ZoneFirst && f.zoneHasItsShare(at, all)
	groups := make([]Group, 0, len(regions)+1)
	for _, region := range regions {
		if zoned && region == at.Region {
			groups = append(groups, Group{Region: region, Zone: at.Zone}, Group{Region: region, Rest: true})
			continue
		}
		groups = append(groups, Group{Region: region})
	}
	for n := range all {
		out.Of[n] = slices.IndexFunc(groups, func(g Group) bool { return g.has(&all[n]) })
	}
	out.close(groups)
	return out
}

func (g Group) has(c *Candidate) bool {
	return c.Region == g.Region && (g.Zone == "" || c.Zone == g.Zone)
}

// close leaves out the groups that nobody is in.
func (r *Rank) close(groups []Group) {
	number := make([]int, len(groups))
	for n, g := range groups {
		number[n] = -1
		if slices.Contains(r.Of, n) {
			number[n] = len(r.Groups)
			r.Groups = append(r.Groups, g)
		}
	}
	for n, was := range r.Of {
		if was >= 0 {
			r.Of[n] = number[was]
		}
	}
}

// regions are those that a client is told of, in their order.
func (f *Failover) regions(at Standpoint, all []Candidate) []string {
	var present []string
	for n := range all {
		if !slices.Contains(present, all[n].Region) {
			present = append(present, all[n].Region)
		}
	}
	slices.Sort(present)
	var out []string
	for _, names := range [][]string{{at.Region}, f.Regions, at.Order, present} {
		for _, name := range names {
			if slices.Contains(present, name) && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	if f.Mode == FailoverLocalOnly || f.Mode == FailoverLocalFirst && countOf(at.Region, all).healthy >= f.minPassing() {
		out = slices.DeleteFunc(out, func(name string) bool { return name != at.Region })
	}
	if f.AllOrNothing && f.MinHealthyPercent != nil { // those that are left are for when nobody else is
		poor := func(name string) int {
			if c := countOf(name, all); c.healthy == 0 || c.healthy*100 < *f.MinHealthyPercent*c.counted {
				return 1
			}
			return 0
		}
		slices.SortStableFunc(out, func(a, b string) int { return poor(a) - poor(b) })
	}
	return out
}

// counts are of the candidates of a region.
type counts struct{ healthy, counted int64 }

func countOf(region string, all []Candidate) (out counts) {
	for n := range all {
		if c := &all[n]; c.Region == region && !c.Leaving {
			out.counted++
			if c.Healthy {
				out.healthy++
			}
		}
	}
	return out
}

// zoneHasItsShare says whether a client's zone can be called first. Clients are taken to be
// in all zones alike, so that a zone which is weaker than the others would be overrun by its
// own: with its healthy weight it must be able to take what it would get if all zones were
// called alike, as far as healthy ones may stand in for others.
func (f *Failover) zoneHasItsShare(at Standpoint, all []Candidate) bool {
	zones := make(map[string]bool) // there may be as many as instances
	var own, region uint64
	for n := range all {
		c := &all[n]
		if c.Region != at.Region {
			continue
		}
		zones[c.Zone] = true
		if c.Healthy && c.Zone == at.Zone {
			own += c.Weight
		}
		if c.Healthy {
			region += c.Weight
		}
	}
	factor := uint64(valueOr(f.OverprovisioningPercent, overprovisioningDefault))
	return at.Zone != "" && own > 0 && own*uint64(len(zones))*factor >= region*100
}

// Rank says whom a client at some place calls first, of some instances of the service.
func (s *Service) Rank(at Standpoint, instances []*Instance) Rank {
	all := make([]Candidate, len(instances))
	for n, i := range instances {
		all[n] = Candidate{
			Region: i.Region, Zone: i.Zone, Weight: s.weightOf(i), Leaving: i.Status == StatusDraining,
			Healthy: i.Status == StatusPassing || i.Status == StatusWarning || s.HandsOut(i),
		}
	}
	return s.Policy.Rank(at, all)
}

// weightOf is the weight of an instance by its primary endpoint.
func (s *Service) weightOf(i *Instance) uint64 {
	if len(s.Endpoints) > 0 {
		if e, has := i.Endpoint(s.Endpoints[0].Name); has {
			return uint64(max(1, e.Weight))
		}
	}
	return 1
}
