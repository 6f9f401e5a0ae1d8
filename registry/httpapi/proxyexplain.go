package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// A ProxyExplanation is why a proxy has the instances of a service as it has them.
type ProxyExplanation struct {
	Member   uint64
	Proxy    Proxy
	Clusters []ClusterExplanation
	Routes   []ProxyResource // that it refuses for the sake of the service's policy
}

// A ClusterExplanation is about one cluster of the service.
type ClusterExplanation struct {
	Name, Endpoint, Subset string
	Told                   bool
	Why                    string         // the proxy is told of it, or not and how to get it in
	Cluster, Endpoints     *ProxyResource // nil = it has not asked for them
	Priorities             []PriorityExplanation
	Hosts                  []HostExplanation
}

// A PriorityExplanation is one priority of a cluster.
type PriorityExplanation struct {
	Priority uint32   `json:"priority"`
	Regions  []string `json:"regions"`
	Hosts    int      `json:"hosts"`
	Healthy  int      `json:"healthy"`
	Share    int      `json:"sharePercent"` // of the calls
}

// A HostExplanation is why an instance stands where it does, or is not there.
type HostExplanation struct {
	Instance string     `json:"instanceId"`
	Region   string     `json:"region"`
	Zone     string     `json:"zone,omitempty"`
	Address  string     `json:"address,omitempty"`
	Status   string     `json:"status"`
	Should   *Placement `json:"should,omitempty"` // be; none = not there
	Has      *Placement `json:"has,omitempty"`    // as the proxy has accepted it
	Why      string     `json:"why"`
}

// A Placement is where a cluster has a host.
type Placement struct {
	Priority uint32 `json:"priority"`
	Weight   uint32 `json:"weight"`
	Health   string `json:"health"`
}

type v2ProxyExplained struct {
	Node         string               `json:"node"`
	Namespace    string               `json:"namespace"`
	Service      string               `json:"service"`
	Revision     registry.Revision    `json:"revision"`
	Explanations []v2ProxyExplanation `json:"explanations"` // one for each of its streams
	Members      []v2MemberProxies    `json:"members"`
}

type v2ProxyExplanation struct {
	Member   uint64                 `json:"member"`
	Number   uint64                 `json:"number"`
	Kind     string                 `json:"kind"`
	Region   string                 `json:"region"`
	Zone     string                 `json:"zone,omitempty"`
	Clusters []v2ClusterExplanation `json:"clusters"`
	Routes   []v2ProxyResource      `json:"routes,omitempty"`
}

type v2ClusterExplanation struct {
	Name       string                `json:"name"`
	Endpoint   string                `json:"endpoint"`
	Subset     string                `json:"subset,omitempty"`
	Told       bool                  `json:"told"`
	Why        string                `json:"why"`
	Cluster    *v2ProxyResource      `json:"cluster,omitempty"`
	Endpoints  *v2ProxyResource      `json:"endpoints,omitempty"`
	Priorities []PriorityExplanation `json:"priorities,omitempty"`
	Hosts      []HostExplanation     `json:"hosts,omitempty"`
}

var explainQuery = append([]string{"namespace", "service", "instance"}, freshQuery...)

// v2ExplainProxy tells why a proxy has a service, or one instance of it, as it has it.
func (a *API) v2ExplainProxy(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	p.only(explainQuery...)
	k := registry.ServiceKey{Namespace: strings.TrimSpace(p.first("namespace")), Service: strings.TrimSpace(p.first("service"))}
	instance, fresh := strings.TrimSpace(p.first("instance")), p.freshness(a)
	if k.Namespace == "" {
		p.add("namespace", "is missing: that of the service")
	}
	if err := p.err(); err != nil {
		return err
	}
	service, at, err := a.registry.Service(q.Context(), k, fresh.Consistency)
	setRevision(w, at)
	if err != nil {
		return err
	}
	fresh.tell(w)
	if _, there := service.Instance(instance); instance != "" && !there {
		return &missingDocument{what: fmt.Sprintf("service %q in namespace %q has no instance %q", k.Service, k.Namespace, clip(instance)), next: "a list of its instances has those that it has"}
	}
	node := q.PathValue("proxy")
	explanations, members, err := a.proxies.Explain(q.Context(), node, service.Key, instance)
	if err != nil {
		return err
	}
	found := proxyDetail(q.Context(), members, ProxyDetailQuery{Node: node})
	if len(found.Proxies) == 0 && found.allSay() {
		return noProxy(node)
	}
	answer := v2ProxyExplained{Node: node, Namespace: service.Key.Namespace, Service: service.Key.Service, Revision: at, Explanations: []v2ProxyExplanation{}, Members: found.Members}
	for i := range explanations {
		if !looksAt(q.Context(), &explanations[i].Proxy) {
			continue
		}
		answer.Explanations = append(answer.Explanations, explanations[i].shown(q.Context()))
	}
	writeJSON(w, http.StatusOK, typeJSON, &answer)
	return nil
}

func (e *ProxyExplanation) shown(ctx context.Context) v2ProxyExplanation {
	out := v2ProxyExplanation{Member: e.Member, Number: e.Proxy.Number, Kind: e.Proxy.Kind, Region: e.Proxy.Region, Zone: e.Proxy.Zone, Clusters: []v2ClusterExplanation{}}
	for _, c := range e.Clusters {
		out.Clusters = append(out.Clusters, v2ClusterExplanation{
			Name: c.Name, Endpoint: c.Endpoint, Subset: c.Subset, Told: c.Told, Why: c.Why,
			Cluster: shownIf(ctx, c.Cluster, e.Member), Endpoints: shownIf(ctx, c.Endpoints, e.Member), Priorities: c.Priorities, Hosts: c.Hosts,
		})
	}
	for i := range e.Routes {
		out.Routes = append(out.Routes, e.Routes[i].shown(ctx, e.Member))
	}
	return out
}

func shownIf(ctx context.Context, r *ProxyResource, member uint64) *v2ProxyResource {
	if r == nil {
		return nil
	}
	out := r.shown(ctx, member)
	return &out
}
