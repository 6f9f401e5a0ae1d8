package httpapi

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// MemberLoad is what the proxies of one member report of the calls to a service.
type MemberLoad struct {
	Member    uint64
	Err       error         // it did not answer
	Reporters int           // proxies that report to it, of whatever
	Window    time.Duration // within which the calls have ended; 0 = it asks for no reports
	Clusters  []ClusterLoad // those with calls
}

// A ClusterLoad is the load of one of a service's clusters.
type ClusterLoad struct {
	Cluster    string
	Localities []LocalityLoad
	Drops      []DropLoad
}

// A LocalityLoad is the load of one zone of a region.
type LocalityLoad struct {
	Region, Zone                  string
	Succeeded, Failed, InProgress uint64
}

// A DropLoad is calls that proxies have not made, by the category of the policy.
type DropLoad struct {
	Category string
	Dropped  uint64
}

type v2Load struct {
	Namespace     string          `json:"namespace"`
	Service       string          `json:"service"`
	WindowSeconds int64           `json:"windowSeconds"` // 0 where no member asks for reports
	Clusters      []v2ClusterLoad `json:"clusters"`
	Members       []v2MemberLoad  `json:"members"`
}

type v2Calls struct {
	Succeeded  uint64 `json:"succeeded"`
	Failed     uint64 `json:"failed"`
	InProgress uint64 `json:"inProgress"`
}

type v2ClusterLoad struct {
	Cluster string `json:"cluster"`
	v2Calls
	Dropped    uint64           `json:"dropped"`
	Localities []v2LocalityLoad `json:"localities"`
	Drops      []v2DropLoad     `json:"drops,omitempty"`
}

type v2LocalityLoad struct {
	Region string `json:"region"`
	Zone   string `json:"zone,omitempty"`
	v2Calls
}

type v2DropLoad struct {
	Category string `json:"category"`
	Dropped  uint64 `json:"dropped"`
}

type v2MemberLoad struct {
	ID        uint64 `json:"id"`
	Reporters int    `json:"reporters"`
	Error     string `json:"error,omitempty"` // why it did not say
}

// v2Load is what the proxies of all members report of the calls to a service.
func (a *API) v2Load(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	p.only(freshQuery...)
	fresh := p.freshness(a)
	if err := p.err(); err != nil {
		return err
	}
	service, err := a.service(w, q, fresh)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(q.Context(), proxiesAnswerMax)
	defer cancel()
	answer := loaded(service.Key, a.proxies.Load(ctx, service.Key))
	writeJSON(w, http.StatusOK, typeJSON, &answer)
	return nil
}

// loaded adds up what the members say.
func loaded(k registry.ServiceKey, answers []MemberLoad) v2Load {
	out := v2Load{Namespace: k.Namespace, Service: k.Service, Clusters: []v2ClusterLoad{}}
	sums := make(loadSums)
	for _, m := range answers {
		one := v2MemberLoad{ID: m.Member, Reporters: m.Reporters}
		if m.Err != nil {
			one.Error = m.Err.Error()
		}
		out.Members = append(out.Members, one)
		out.WindowSeconds = max(out.WindowSeconds, int64(m.Window/time.Second))
		for _, c := range m.Clusters {
			sums.add(c)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		out.Clusters = append(out.Clusters, sums[name].shown(name))
	}
	return out
}

// loadSums are the sums over members, by cluster.
type loadSums map[string]*clusterSum

type clusterSum struct {
	localities map[[2]string]v2Calls // by region and zone
	drops      map[string]uint64     // by category
}

func (s loadSums) add(c ClusterLoad) {
	sum := s[c.Cluster]
	if sum == nil {
		sum = &clusterSum{localities: make(map[[2]string]v2Calls), drops: make(map[string]uint64)}
		s[c.Cluster] = sum
	}
	for _, at := range c.Localities {
		place := [2]string{at.Region, at.Zone}
		sum.localities[place] = sum.localities[place].plus(v2Calls{at.Succeeded, at.Failed, at.InProgress})
	}
	for _, d := range c.Drops {
		sum.drops[d.Category] += d.Dropped
	}
}

func (c v2Calls) plus(o v2Calls) v2Calls {
	return v2Calls{c.Succeeded + o.Succeeded, c.Failed + o.Failed, c.InProgress + o.InProgress}
}

func (s *clusterSum) shown(name string) v2ClusterLoad {
	out := v2ClusterLoad{Cluster: name, Localities: []v2LocalityLoad{}}
	for at, n := range s.localities {
		out.Localities = append(out.Localities, v2LocalityLoad{at[0], at[1], n})
		out.v2Calls = out.v2Calls.plus(n)
	}
	slices.SortFunc(out.Localities, func(a, b v2LocalityLoad) int {
		return cmp.Or(cmp.Compare(a.Region, b.Region), cmp.Compare(a.Zone, b.Zone))
	})
	for _, category := range slices.Sorted(maps.Keys(s.drops)) {
		out.Drops = append(out.Drops, v2DropLoad{category, s.drops[category]})
		out.Dropped += s.drops[category]
	}
	return out
}
