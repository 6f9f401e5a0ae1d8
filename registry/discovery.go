package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What a client at some place is given of a service, and of each region why it is that
// much: by the mode of the service's policy, or by another that the request names.
//
// Who is called first is Rank's to say, for proxies and for those who ask alike; in mode
// gateway other regions' instances are replaced as they are for proxies, see gateway.go.

// DiscoveryMax is how many instances an answer has at most; the first are those that are called first.
const DiscoveryMax = 1_000

// Neighbours are what the settings of a member say of other regions.
type Neighbours struct {
	Sources []RegionKey   // that are followed, in order of preference
	Fresh   time.Duration // a copy that is younger is connected
	Wanted  []Selection   // what is taken of each of the sources; none = everything
	Exports Selection     // what other regions are told of this one
}

// A DiscoveryQuery is what is asked for.
type DiscoveryQuery struct {
	Query                       // of one service; of what a client is given, that which matches is told
	FromRegion, FromZone string // where the client is; no region = this registry's
	Failover             string // one of FailoverChoices; "" = as the policy says
	Neighbours           Neighbours
}

// Check says all that is wrong with a query, as asking it would.
func (q *DiscoveryQuery) Check() error {
	var bad problems
	if invalid := (*ValidationError)(nil); errors.As(q.Query.Check(), &invalid) {
		bad = invalid.Problems
	}
	if len(q.Services) != 1 || strings.TrimSpace(q.Services[0]) == "" {
		bad.add("service", "is missing: "+nameRule)
	}
	if q.Failover != "" && !slices.Contains(FailoverChoices, q.Failover) {
		bad.add("failover", fmt.Sprintf("%s is not known: %s", quoted(q.Failover), strings.Join(FailoverChoices, ", ")))
	}
	if q.Limit > DiscoveryMax {
		bad.add("limit", fmt.Sprintf("%d is not from 0 to %d", q.Limit, DiscoveryMax))
	}
	return bad.err()
}

// A Discovery is what a client is given of a service.
type Discovery struct {
	Key                  ServiceKey
	Revision             Revision
	FromRegion, FromZone string
	Mode                 string
	Exported             string // how much of what is registered here other regions are told: all, some or none
	Regions              []DiscoveredRegion
	Given                []Discovered // those first that are called first
	More                 bool         // there are others, which are called later
}

// A DiscoveredRegion is what a region contributes.
type DiscoveredRegion struct {
	Key        RegionKey // of this region itself without a cluster
	Age        time.Duration
	KnownAge   bool // the copy was confirmed once; this region's own is none
	Connected  bool
	Instances  int // that there are of it here, whatever their status
	Suspect    int // of these, since the copy is old
	Withheld   int // of these, since it is
	Given      int // that the client is told of
	Gateways   int // of these, in the place of instances
	Priorities []int
	Why        []RegionReason // that it is not all that the region has
}

// A RegionReason is why a region gives less than it has, for programs and for people.
type RegionReason struct{ Code, Text string }

// A Discovered is an instance that a client is given, or a gateway in the place of some.
type Discovered struct {
	*Instance
	Priority    int      // 0 is called first
	Authorities []string // of a gateway, for each of its endpoints: by what it is told where to; nil = it is no gateway
}

// Discover says what a client is given. The error is ErrNotFound when the service is not
// known, at the revision that is returned.
func (r *Registry) Discover(ctx context.Context, q DiscoveryQuery) (Discovery, error) {
	if err := q.Check(); err != nil {
		return Discovery{}, err
	}
	if q.Failover == FailoverPolicy {
		q.Failover = ""
	}
	found, at, err := r.Service(ctx, ServiceKey{Namespace: q.Namespace, Service: q.Services[0]}, q.Consistency) // which asks whether the caller may see it
	if err != nil {
		return Discovery{Revision: at}, err
	}
	f, err := q.filterFor(ctx)
	if err != nil {
		return Discovery{Revision: at}, err
	}
	s, gateways, at := r.machine.withGateways(found.Key, q.Failover)
	if s == nil { // it has gone since
		s, gateways, at = found.Service, nil, max(at, found.Revision)
	}
	d := discoverer{registry: r, query: &q, service: s, gateways: gateways, at: Standpoint{Region: q.FromRegion, Zone: q.FromZone, Mode: q.Failover, Order: r.order}}
	if d.at.Region == "" {
		d.at.Region = r.OwnRegion()
	}
	out := d.discover(f)
	out.Revision = at
	return out, nil
}

// withGateways is a service with that of its gateways, if the mode has any, as both are at one revision.
func (m *Machine) withGateways(k ServiceKey, mode string) (s, gateways *Service, at Revision) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	svc := m.published.services[k]
	if svc == nil {
		return nil, nil, m.revision
	}
	s = svc.snapshot()
	if by, wanted := s.Policy.gatewayOf(k, mode); wanted {
		if other := m.published.services[by]; other != nil {
			gateways = other.snapshot()
		}
	}
	return s, gateways, m.revision
}

// A discoverer makes one answer.
type discoverer struct {
	registry *Registry
	query    *DiscoveryQuery
	service  *Service
	gateways *Service // nil = there are none
	at       Standpoint
}

func (d *discoverer) discover(f *filter) Discovery {
	s, known := d.service, &d.query.Neighbours
	out := Discovery{
		Key: s.Key, FromRegion: d.at.Region, FromZone: d.at.Zone, Mode: d.at.Mode,
		Exported: known.Exports.HowMuch(s.Key), Regions: d.registry.discoverable(known),
	}
	if out.Mode == "" {
		out.Mode = s.Policy.FailoverMode()
	}
	for _, i := range s.Instances {
		of := out.region(i)
		of.Instances++
		switch c, aged := i.Condition(SourceRegion, ""); {
		case aged && c.Status == StatusSuspect:
			of.Suspect++
		case aged:
			of.Withheld++
		}
	}
	told, authorities, missing := d.told()
	rank := told.Rank(d.at, told.Shown)
	for n, i := range told.Shown {
		if rank.Of[n] < 0 || !i.Status.Routable() && !told.HandsOut(i) {
			continue
		}
		out.give(Discovered{Instance: told.asHandedOut(i), Priority: rank.Of[n], Authorities: authorities[i]}, f)
	}
	slices.SortStableFunc(out.Given, func(a, b Discovered) int { return a.Priority - b.Priority })
	most := d.query.Limit
	if most == 0 {
		most = DiscoveryMax
	}
	if len(out.Given) > most {
		out.Given, out.More = out.Given[:most], true
	}
	for n := range out.Regions {
		slices.Sort(out.Regions[n].Priorities)
		out.Regions[n].Why = d.whyNotAll(&out, &out.Regions[n], missing)
	}
	return out
}

// give counts what the client is given, and tells of it if it was asked for.
func (d *Discovery) give(one Discovered, f *filter) {
	of := d.region(one.Instance)
	of.Given++
	if one.Authorities != nil {
		of.Gateways++
	}
	if !slices.Contains(of.Priorities, one.Priority) {
		of.Priorities = append(of.Priorities, one.Priority)
	}
	if f.takes(one.Instance, one.Protected) {
		d.Given = append(d.Given, one.asWanted(f))
	}
}

// asWanted is it without the endpoints that were not asked for.
func (d Discovered) asWanted(f *filter) Discovered {
	whole, names := d.Instance, d.Authorities
	if d.Instance = f.asWanted(whole); d.Instance == whole || names == nil {
		return d
	}
	d.Authorities = []string{}
	for n, e := range whole.Endpoints {
		if f.wantsEndpoint(e) {
			d.Authorities = append(d.Authorities, names[n])
		}
	}
	return d
}

// discoverable are the regions that there may be something of: this one, those of the
// settings in their order, and others that there is a copy of.
func (r *Registry) discoverable(known *Neighbours) []DiscoveredRegion {
	out := []DiscoveredRegion{{Key: RegionKey{Region: r.OwnRegion()}, Connected: true}}
	for _, k := range known.Sources {
		out = append(out, DiscoveredRegion{Key: k})
	}
	for _, of := range r.Regions() {
		if !slices.Contains(known.Sources, of.Key) {
			out = append(out, DiscoveredRegion{Key: of.Key})
		}
	}
	for n := range out[1:] {
		one := &out[n+1]
		of := r.Region(one.Key)
		one.Age, one.KnownAge = r.RegionAge(of)
		one.Connected = r.Connected(of, known)
	}
	return out
}

// Connected says whether a copy is followed, and was confirmed lately.
func (r *Registry) Connected(of Region, known *Neighbours) bool {
	age, confirmed := r.RegionAge(of)
	return confirmed && !of.Paused && age <= known.Fresh && slices.Contains(known.Sources, of.Key)
}

// region is that of an instance. One that was forgotten since may be in none: it is the last.
func (d *Discovery) region(i *Instance) *DiscoveredRegion {
	k := d.Regions[0].Key
	if i.Imported != nil {
		k = RegionKey{Region: i.Region, Cluster: i.Imported.Cluster}
	}
	at := slices.IndexFunc(d.Regions, func(r DiscoveredRegion) bool { return r.Key == k })
	if at < 0 {
		d.Regions = append(d.Regions, DiscoveredRegion{Key: k})
		at = len(d.Regions) - 1
	}
	return &d.Regions[at]
}

// told is the service as the client is told of it: in mode gateway with gateways in the place of
// other regions' instances, by what each of them is told where to, and by region why there are none.
func (d *discoverer) told() (s *Service, authorities map[*Instance][]string, missing map[string]string) {
	by, wanted := d.service.Policy.gatewayOf(d.service.Key, d.at.Mode)
	if !wanted {
		return d.service, nil, nil
	}
	passed := slices.DeleteFunc(slices.Clone(d.service.Endpoints), func(e ServiceEndpoint) bool { return !PassesGateways(e.Protocol) })
	p := Passage{By: by, Closed: NoWayByGateways, Wanted: callable(d.service, d.at.Region, d.service.Endpoints)}
	if len(passed) > 0 {
		p.Closed, p.Wanted = GatewaysClosed(passed[0].Protocol, by, d.gateways), callable(d.service, d.at.Region, passed)
	}
	if p.Closed != "" {
		return d.service.Instead(d.at.Region, nil), nil, p.Missing()
	}
	doors := d.gateways.Endpoints[:1]
	p.Open = callable(d.gateways, d.at.Region, doors)
	var standIns []*Instance
	authorities = make(map[*Instance][]string)
	for _, i := range d.gateways.Shown {
		if door, fits := fitting(i, doors); fits && p.Leads(i.Region) {
			one, names := d.standIn(d.gateways.asHandedOut(i), door)
			standIns, authorities[one] = append(standIns, one), names
		}
	}
	return d.service.Instead(d.at.Region, standIns), authorities, p.Missing()
}

// callable are the regions, the client's left out, with an instance that can be called at one of some endpoints.
func callable(s *Service, from string, at []ServiceEndpoint) map[string]bool {
	out := make(map[string]bool)
	for _, i := range s.Shown {
		if _, fits := fitting(i, at); fits && i.Region != from && (i.Status.Routable() || s.HandsOut(i)) {
			out[i.Region] = true
		}
	}
	return out
}

// fitting is the first of some endpoints that an instance has as its service has it.
func fitting(i *Instance, at []ServiceEndpoint) (Endpoint, bool) {
	for _, want := range at {
		if e, has := i.Endpoint(want.Name); has && e.Protocol == want.Protocol {
			return e, true
		}
	}
	return Endpoint{}, false
}

// standIn is a gateway with an endpoint for each of the service's that it passes on, all
// of them where the gateway is, and by what it is told which is meant.
func (d *discoverer) standIn(i *Instance, door Endpoint) (*Instance, []string) {
	out, names := *i, []string{}
	out.Endpoints = nil
	for n, e := range d.service.Endpoints {
		if !PassesGateways(e.Protocol) {
			continue
		}
		at := door
		at.Name, at.Protocol = e.Name, e.Protocol
		out.Endpoints, names = append(out.Endpoints, at), append(names, d.service.Key.Authority(n, e.Name))
	}
	return &out, names
}

// whyNotAll says why a client is not given all that a region has, as far as it is known here.
func (d *discoverer) whyNotAll(all *Discovery, of *DiscoveredRegion, missing map[string]string) []RegionReason {
	out := []RegionReason{}
	because := func(is bool, code, text string, args ...any) {
		if is {
			out = append(out, RegionReason{code, fmt.Sprintf(text, args...)})
		}
	}
	if of.Key.Cluster != 0 {
		d.whyNotCopied(of, because)
	}
	usable := of.Instances - of.Withheld
	by, _ := d.service.Policy.gatewayOf(d.service.Key, d.at.Mode)
	switch remote, why := of.Key.Region != all.FromRegion, missing[of.Key.Region]; {
	case why != "":
		because(true, "no_gateway", "it is reached by gateways, and is not: %s", why)
	case of.Gateways > 0:
		because(true, "gateway", "it is reached by its gateways, the instances of service %s in namespace %s there, which are given in place of its instances", by.Service, by.Namespace)
	case usable == 0 || of.Given > 0:
	case remote && all.Mode == FailoverLocalOnly:
		because(true, "local_only", "the mode is local-only: a client in region %s is told of that region's instances only", all.FromRegion)
	case remote && all.Mode == FailoverLocalFirst:
		because(true, "local_first", "the mode is local-first, and region %s has the %d passing instances that are enough", all.FromRegion, d.service.Policy.MinPassing())
	default:
		because(true, "unhealthy", "none of its instances is fit for use")
	}
	return out
}

// whyNotCopied says what keeps a copy of another region from being whole and young.
func (d *discoverer) whyNotCopied(of *DiscoveredRegion, because func(is bool, code, text string, args ...any)) {
	copied, known := d.registry.Region(of.Key), &d.query.Neighbours
	at := slices.Index(known.Sources, of.Key)
	because(at < 0, "not_followed", "no [[federation.regions]] of this member's settings names it")
	because(copied.Paused, "paused", "its copy takes nothing in: stellmapctl federation resume %s", of.Key.Region)
	imported := "all"
	if at >= 0 && at < len(known.Wanted) {
		imported = known.Wanted[at].HowMuch(d.service.Key)
	}
	because(imported == "none", "not_imported", "import of its [[federation.regions]] does not select the service")
	because(imported == "some", "partly_imported", "import of its [[federation.regions]] selects instances of the service by their labels")
	switch {
	case copied.Cursor.Sync != 0:
		because(true, "full_sync", "it is telling all there is, and has not come to its end")
	case copied.Cursor.Incarnation == "":
		because(true, "nothing_told", "it has told nothing yet")
	case of.Instances == 0 && imported != "none":
		because(true, "not_told", "it tells of no instance of the service: it has none, or does not export them")
	}
	because(!of.Connected && !copied.Paused && at >= 0, "not_connected", "it has not been heard for a while: what there is of it ages")
	because(copied.Held.Since != 0, "held", "%d of its instances, of all services, were not told in the last full sync, and are kept until that is confirmed", copied.Held.Instances)
	because(of.Suspect > 0, "stale_suspect", "its copy is too old for failover.staleAfterSeconds of the policy: %d are used after all others", of.Suspect)
	because(of.Withheld > 0, "stale_withheld", "its copy is too old for failover.staleAfterSeconds of the policy: %d are not used", of.Withheld)
}
