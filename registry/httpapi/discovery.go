package httpapi

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/stellmap/stellmap/registry"
)

// What a client at some place is given of a service, and of each region why it is that
// much: by the mode of the service's policy, or by another that the request names.

// The parameters of a discovery.
const (
	failoverName   = "failover"
	fromRegionName = "fromRegion"
	fromZoneName   = "fromZone"
)

var discoveryQuery = append([]string{failoverName, fromRegionName, fromZoneName, limitName}, freshQuery...)

// discoveryMax is how many instances an answer has at most; the first are those that are called first.
const discoveryMax = 1_000

// failoverWords are the modes that a request may name: gateways take the place of instances for proxies only.
var failoverWords = []string{registry.FailoverLocalOnly, registry.FailoverLocalFirst, registry.FailoverRemoteFallback, registry.FailoverMerged}

type shownDiscovery struct {
	Namespace  string               `json:"namespace"`
	Service    string               `json:"service"`
	Revision   registry.Revision    `json:"revision"`
	FromRegion string               `json:"fromRegion"`
	FromZone   string               `json:"fromZone,omitempty"`
	Mode       string               `json:"mode"`
	Exported   string               `json:"exported"` // how much of what is registered here other regions are told: all, some or none
	Regions    []discoveredRegion   `json:"regions"`
	Instances  []discoveredInstance `json:"instances"`
	More       bool                 `json:"more,omitempty"` // there are others, which are called later
}

// discoveredRegion is what a region contributes.
type discoveredRegion struct {
	Region     string         `json:"region"`
	ClusterID  uint64         `json:"clusterId,omitempty"` // of another region
	AgeMs      *int64         `json:"ageMs,omitempty"`     // of the copy of another region; absent = it was never confirmed
	Connected  bool           `json:"connected"`
	Instances  int            `json:"instances"` // that there are of it here, whatever their status
	Suspect    int            `json:"suspect,omitempty"`
	Withheld   int            `json:"withheld,omitempty"`
	Given      int            `json:"given"`                // that the client is told of
	Priorities []int          `json:"priorities,omitempty"` // of those; 0 is called first
	Why        []regionReason `json:"why"`                  // that it is not all that the region has
}

// key names the copy; that of this region itself is none.
func (r *discoveredRegion) key() registry.RegionKey {
	if r.ClusterID == 0 {
		return registry.RegionKey{}
	}
	return registry.RegionKey{Region: r.Region, Cluster: r.ClusterID}
}

type regionReason struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

type discoveredInstance struct {
	InstanceID string         `json:"instanceId"`
	Region     string         `json:"region"`
	Zone       string         `json:"zone,omitempty"`
	Status     string         `json:"status"`
	Priority   int            `json:"priority"`
	Endpoints  []endpointBody `json:"endpoints"`
}

func (a *API) v2Discovery(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	p.only(discoveryQuery...)
	fresh := p.freshness(a)
	at := registry.Standpoint{Region: p.first(fromRegionName), Zone: p.first(fromZoneName), Order: a.registry.RegionOrder()}
	if p.first(failoverName) != "" {
		at.Mode = p.choice(failoverName, failoverWords...)
	}
	if at.Region == "" {
		at.Region = a.registry.OwnRegion()
	}
	most := p.limit()
	if most < 0 || most > discoveryMax {
		p.add(limitName, fmt.Sprintf("%d is not from 0 to %d", most, discoveryMax))
	}
	if err := p.err(); err != nil {
		return err
	}
	one, revision, err := a.registry.Service(q.Context(), pathService(q), fresh.Consistency)
	setRevision(w, revision)
	if err != nil {
		return err
	}
	fresh.tell(w)
	if most == 0 {
		most = discoveryMax
	}
	out := a.discover(one.Service, at, most)
	out.Revision = revision
	writeJSON(w, http.StatusOK, typeJSON, &out)
	return nil
}

// discover says what a client gets of a service, region by region.
func (a *API) discover(s *registry.Service, at registry.Standpoint, most int) shownDiscovery {
	settings := a.federation()
	out := shownDiscovery{
		Namespace: s.Key.Namespace, Service: s.Key.Service, FromRegion: at.Region, FromZone: at.Zone, Mode: at.Mode,
		Exported: settings.Exports.HowMuch(s.Key), Regions: a.discoverable(settings), Instances: []discoveredInstance{},
	}
	if out.Mode == "" {
		out.Mode = s.Policy.FailoverMode()
	}
	rank := s.Rank(at, s.Shown)
	for _, i := range s.Instances {
		of := out.region(i)
		of.Instances++
		switch c, aged := i.Condition(registry.SourceRegion, ""); {
		case aged && c.Status == registry.StatusSuspect:
			of.Suspect++
		case aged:
			of.Withheld++
		}
	}
	for n, i := range s.Shown {
		if rank.Of[n] < 0 || !i.Status.Routable() && !s.HandsOut(i) || i.Imported != nil && out.Mode == registry.FailoverGateway {
			continue
		}
		of := out.region(i)
		of.Given++
		if !slices.Contains(of.Priorities, rank.Of[n]) {
			of.Priorities = append(of.Priorities, rank.Of[n])
		}
		out.Instances = append(out.Instances, discoveredOf(i, rank.Of[n]))
	}
	slices.SortStableFunc(out.Instances, func(a, b discoveredInstance) int { return a.Priority - b.Priority })
	if len(out.Instances) > most {
		out.Instances, out.More = out.Instances[:most], true
	}
	for n := range out.Regions {
		slices.Sort(out.Regions[n].Priorities)
		out.Regions[n].Why = a.whyNotAll(s, &out, &out.Regions[n], settings)
	}
	return out
}

// discoverable are the regions that there may be something of: this one, those of the
// settings in their order, and others that there is a copy of.
func (a *API) discoverable(settings Federation) []discoveredRegion {
	out := []discoveredRegion{{Region: a.registry.OwnRegion(), Connected: true}}
	for _, k := range settings.Sources {
		out = append(out, discoveredRegion{Region: k.Region, ClusterID: k.Cluster})
	}
	for _, of := range a.registry.Regions() {
		if !slices.Contains(settings.Sources, of.Key) {
			out = append(out, discoveredRegion{Region: of.Key.Region, ClusterID: of.Key.Cluster})
		}
	}
	for n := range out[1:] {
		one := &out[n+1]
		of := a.shownRegion(a.registry.Region(one.key()), slices.Contains(settings.Sources, one.key()), settings.Fresh)
		one.AgeMs, one.Connected = of.AgeMs, of.Connected
	}
	return out
}

// region is that of an instance. One that was forgotten since may be in none: it is the last.
func (d *shownDiscovery) region(i *registry.Instance) *discoveredRegion {
	k := registry.RegionKey{}
	if i.Imported != nil {
		k = registry.RegionKey{Region: i.Region, Cluster: i.Imported.Cluster}
	}
	at := slices.IndexFunc(d.Regions, func(r discoveredRegion) bool { return r.key() == k })
	if at < 0 {
		d.Regions = append(d.Regions, discoveredRegion{Region: k.Region, ClusterID: k.Cluster})
		at = len(d.Regions) - 1
	}
	return &d.Regions[at]
}

func discoveredOf(i *registry.Instance, priority int) discoveredInstance {
	out := discoveredInstance{InstanceID: i.ID, Region: i.Region, Zone: i.Zone, Status: i.Status.String(), Priority: priority}
	for _, e := range i.Endpoints {
		out.Endpoints = append(out.Endpoints, endpointBody{Name: e.Name, Protocol: e.Protocol, Host: e.Host, Port: e.Port, Path: e.Path, Weight: e.Weight})
	}
	return out
}

// whyNotAll says why a client is not given all that a region has, as far as it is known here.
func (a *API) whyNotAll(s *registry.Service, all *shownDiscovery, of *discoveredRegion, settings Federation) []regionReason {
	out := []regionReason{}
	because := func(is bool, code, text string, args ...any) {
		if is {
			out = append(out, regionReason{code, fmt.Sprintf(text, args...)})
		}
	}
	if of.key() != (registry.RegionKey{}) {
		a.whyNotCopied(s, of, settings, because)
	}
	usable := of.Instances - of.Withheld
	switch remote := of.Region != all.FromRegion; {
	case usable == 0 || of.Given > 0:
	case all.Mode == registry.FailoverGateway && of.ClusterID != 0:
		because(true, "gateway", "proxies are given the gateways of the region in place of its instances")
	case remote && all.Mode == registry.FailoverLocalOnly:
		because(true, "local_only", "the mode is local-only: a client in region %s is told of that region's instances only", all.FromRegion)
	case remote && all.Mode == registry.FailoverLocalFirst:
		because(true, "local_first", "the mode is local-first, and region %s has the %d passing instances that are enough", all.FromRegion, s.Policy.MinPassing())
	default:
		because(true, "unhealthy", "none of its instances is fit for use")
	}
	return out
}

// whyNotCopied says what keeps a copy of another region from being whole and young.
func (a *API) whyNotCopied(s *registry.Service, of *discoveredRegion, settings Federation, because func(is bool, code, text string, args ...any)) {
	copied := a.registry.Region(of.key())
	at := slices.Index(settings.Sources, of.key())
	because(at < 0, "not_followed", "no [[federation.regions]] of this member's settings names it")
	because(copied.Paused, "paused", "its copy takes nothing in: stellmapctl federation resume %s", clip(of.Region))
	imported := "all"
	if at >= 0 && at < len(settings.Wanted) {
		imported = settings.Wanted[at].HowMuch(s.Key)
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
