package httpapi

import (
	"net/http"

	"github.com/stellmap/stellmap/registry"
)

// What a client at some place is given of a service, and of each region why it is that
// much, in the form of HTTP. What that is the registry says.

// The parameters of a discovery.
const (
	failoverName   = "failover"
	fromRegionName = "fromRegion"
	fromZoneName   = "fromZone"
)

var discoveryQuery = append([]string{failoverName, fromRegionName, fromZoneName, limitName}, freshQuery...)

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
	Gateways   int            `json:"gateways,omitempty"`   // of these, in the place of instances
	Priorities []int          `json:"priorities,omitempty"` // of those; 0 is called first
	Why        []regionReason `json:"why"`                  // that it is not all that the region has
}

type regionReason struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

type discoveredInstance struct {
	InstanceID string               `json:"instanceId"`
	Region     string               `json:"region"`
	Zone       string               `json:"zone,omitempty"`
	Status     string               `json:"status"`
	Priority   int                  `json:"priority"`
	Gateway    *shownGateway        `json:"gateway,omitempty"` // it is one, in the place of the region's instances
	Endpoints  []discoveredEndpoint `json:"endpoints"`
}

// shownGateway names the service that a gateway is an instance of.
type shownGateway struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
}

type discoveredEndpoint struct {
	Name      string `json:"name"`
	Protocol  string `json:"protocol"`
	Host      string `json:"host"`
	Port      int32  `json:"port"`
	Path      string `json:"path"`
	Weight    int32  `json:"weight"`
	Authority string `json:"authority,omitempty"` // of a gateway: the host, or of TLS the SNI, by which it knows where to
}

func (a *API) v2Discovery(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	p.only(discoveryQuery...)
	fresh := p.freshness(a)
	k := pathService(q)
	found, err := a.discover(w, q, p, registry.Query{Namespace: k.Namespace, Services: []string{k.Service}, Statuses: []string{"any"}, Limit: p.limit(), Consistency: fresh.Consistency})
	if err != nil {
		return err
	}
	fresh.tell(w)
	writeJSON(w, http.StatusOK, typeJSON, discoveryShown(&found))
	return nil
}

// discover finds what a client at the place that the parameters name is given.
func (a *API) discover(w http.ResponseWriter, q *http.Request, p *parameters, of registry.Query) (found registry.Discovery, err error) {
	ask := registry.DiscoveryQuery{Query: of, Failover: p.first(failoverName), FromRegion: p.first(fromRegionName), FromZone: p.first(fromZoneName), Neighbours: a.federation().Neighbours}
	p.join(ask.Check())
	if err = p.err(); err != nil {
		return found, err
	}
	found, err = a.registry.Discover(q.Context(), ask)
	setRevision(w, found.Revision)
	return found, err
}

func discoveryShown(d *registry.Discovery) *shownDiscovery {
	out := &shownDiscovery{
		Namespace: d.Key.Namespace, Service: d.Key.Service, Revision: d.Revision, FromRegion: d.FromRegion, FromZone: d.FromZone, Mode: d.Mode,
		Exported: d.Exported, Regions: regionsShown(d), Instances: []discoveredInstance{}, More: d.More,
	}
	for n := range d.Given {
		out.Instances = append(out.Instances, discoveredShown(&d.Given[n]))
	}
	return out
}

func regionsShown(d *registry.Discovery) []discoveredRegion {
	var out []discoveredRegion
	for n := range d.Regions {
		r := &d.Regions[n]
		one := discoveredRegion{
			Region: r.Key.Region, ClusterID: r.Key.Cluster, Connected: r.Connected, Instances: r.Instances, Suspect: r.Suspect, Withheld: r.Withheld,
			Given: r.Given, Gateways: r.Gateways, Priorities: r.Priorities, Why: []regionReason{},
		}
		if r.KnownAge {
			ms := r.Age.Milliseconds()
			one.AgeMs = &ms
		}
		for _, why := range r.Why {
			one.Why = append(one.Why, regionReason{why.Code, why.Text})
		}
		out = append(out, one)
	}
	return out
}

func discoveredShown(one *registry.Discovered) discoveredInstance {
	i := one.Instance
	out := discoveredInstance{InstanceID: i.ID, Region: i.Region, Zone: i.Zone, Status: i.Status.String(), Priority: one.Priority}
	for n, e := range i.Endpoints {
		shown := discoveredEndpoint{Name: e.Name, Protocol: e.Protocol, Host: e.Host, Port: e.Port, Path: e.Path, Weight: e.Weight}
		if one.Authorities != nil {
			shown.Authority = one.Authorities[n]
		}
		out.Endpoints = append(out.Endpoints, shown)
	}
	if one.Authorities != nil {
		out.Gateway = &shownGateway{i.Namespace, i.Service}
	}
	return out
}
