package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// A proxyExplained is why the proxies of a node have a service as they have it.
type proxyExplained struct {
	Node         string             `json:"node"`
	Namespace    string             `json:"namespace"`
	Service      string             `json:"service"`
	Revision     uint64             `json:"revision"`
	Explanations []proxyExplanation `json:"explanations"`
	Members      []memberProxies    `json:"members"`
}

type proxyExplanation struct {
	Member   uint64               `json:"member"`
	Number   uint64               `json:"number"`
	Kind     string               `json:"kind"`
	Region   string               `json:"region"`
	Zone     string               `json:"zone,omitempty"`
	Clusters []clusterExplanation `json:"clusters"`
	Routes   []proxyResource      `json:"routes,omitempty"`
}

type clusterExplanation struct {
	Name       string                `json:"name"`
	Endpoint   string                `json:"endpoint"`
	Subset     string                `json:"subset,omitempty"`
	Told       bool                  `json:"told"`
	Why        string                `json:"why"`
	Cluster    *proxyResource        `json:"cluster,omitempty"`
	Endpoints  *proxyResource        `json:"endpoints,omitempty"`
	Priorities []priorityExplanation `json:"priorities,omitempty"`
	Hosts      []hostExplanation     `json:"hosts,omitempty"`
}

type priorityExplanation struct {
	Priority int      `json:"priority"`
	Regions  []string `json:"regions"`
	Hosts    int      `json:"hosts"`
	Healthy  int      `json:"healthy"`
	Share    int      `json:"sharePercent"`
}

type hostExplanation struct {
	InstanceID string     `json:"instanceId"`
	Region     string     `json:"region"`
	Zone       string     `json:"zone,omitempty"`
	Address    string     `json:"address,omitempty"`
	Status     string     `json:"status"`
	Should     *placement `json:"should,omitempty"`
	Has        *placement `json:"has,omitempty"`
	Why        string     `json:"why"`
}

type placement struct {
	Priority int    `json:"priority"`
	Weight   int    `json:"weight"`
	Health   string `json:"health"`
}

func (c *ctl) proxyExplainCommand() *cobra.Command {
	var namespace string
	cmd := &cobra.Command{
		Use:   "explain NODE SERVICE[/INSTANCE]",
		Short: "Why a proxy has the instances of a service where it has them, or not",
		Long: `explain shows for each cluster of a service whether the proxy with a node id is told of
it, and if not how it would be; how its priorities share the calls; and for each instance
where it is to be, where the proxy has accepted that it is, and why: which region comes
when, why it is not healthy, or why it is withheld. Of what the proxy refuses its words are
shown, and who edited the policy by which it came.`,
		Example: `  stellmapctl proxy explain web-1 orders -n prod
  stellmapctl proxy explain web-1 orders/orders-1 -n prod`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("%s wants the node id of a proxy and SERVICE or SERVICE/INSTANCE, got %d words", nameOf(cmd), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			service, instance, _ := strings.Cut(args[1], "/")
			if err := checkSegment("SERVICE", service); err != nil {
				return err
			}
			q := url.Values{"namespace": {namespace}, "service": {service}}
			if instance != "" {
				q.Set("instance", instance)
			}
			doing := "proxy explain " + args[0] + " " + args[1]
			var out proxyExplained
			path := "/api/v2/proxies/" + url.PathEscape(args[0]) + "/explain?" + q.Encode()
			if err := c.call(cmd.Context(), request{doing: doing, method: http.MethodGet, path: path}, &out); err != nil {
				return err
			}
			if err := c.show(c.explainedView(out)); err != nil {
				return err
			}
			return incomplete(doing, "not all members have said what they know of it", out.Members)
		},
	}
	namespaceFlag(cmd.Flags(), &namespace)
	return cmd
}

func (c *ctl) explainedView(e proxyExplained) view {
	v := view{whole: e, items: []any{}}
	for _, one := range e.Explanations {
		v.items = append(v.items, one)
		if len(e.Explanations) > 1 {
			v.parts = append(v.parts, view{line: fmt.Sprintf("stream %d at member %d", one.Number, one.Member)})
		}
		for i := range one.Clusters {
			v.names = append(v.names, one.Clusters[i].Name)
			v.parts = append(v.parts, c.clusterParts(&one.Clusters[i])...)
		}
		for i := range one.Routes {
			v.parts = append(v.parts, c.refusalLines(&one.Routes[i])...)
		}
	}
	v.parts = append(v.parts, view{foot: revisionLine(e.Revision)})
	return v
}

// clusterParts are what there is to say of one cluster.
func (c *ctl) clusterParts(e *clusterExplanation) []view {
	out := []view{{line: fmt.Sprintf("cluster %s: %s", e.Name, e.Why)}}
	out = append(out, c.refusalLines(e.Cluster)...)
	out = append(out, c.refusalLines(e.Endpoints)...)
	for _, p := range e.Priorities {
		out = append(out, view{line: fmt.Sprintf("  priority %d  %s  %d of %d healthy, %d%% of the calls", p.Priority, strings.Join(p.Regions, ","), p.Healthy, p.Hosts, p.Share)})
	}
	if len(e.Hosts) == 0 {
		return out
	}
	hosts := view{columns: []column{{"INSTANCE", false}, {"ADDRESS", false}, {"REGION", false}, {"ZONE", true}, {"STATUS", false}, {"PRIORITY", false}, {"WEIGHT", false}, {"HEALTH", false},
		{"HAS IT", false}, {"WHY", false}}}
	for _, h := range e.Hosts {
		priority, weight, health := "", "", ""
		if h.Should != nil {
			priority, weight, health = fmt.Sprint(h.Should.Priority), fmt.Sprint(h.Should.Weight), h.Should.Health
		}
		hosts.rows = append(hosts.rows, []string{h.InstanceID, h.Address, h.Region, h.Zone, h.Status, priority, weight, health, h.held(), h.Why})
	}
	return append(out, hosts)
}

// held is whether the proxy has an instance as it should.
func (h *hostExplanation) held() string {
	switch {
	case h.Should == nil && h.Has == nil:
		return ""
	case h.Has == nil:
		return "not yet"
	case h.Should == nil:
		return "still"
	case *h.Should == *h.Has:
		return "yes"
	}
	return fmt.Sprintf("as %d/%d/%s", h.Has.Priority, h.Has.Weight, h.Has.Health)
}

// refusalLines are what there is to say of a resource that the proxy lacks; nothing of one that it has.
func (c *ctl) refusalLines(r *proxyResource) []view {
	if r == nil || r.State == "synced" {
		return nil
	}
	if r.State == "absent" {
		return []view{{line: fmt.Sprintf("  %s %s: there is no such thing", r.Type, r.Name)}}
	}
	return c.standing("  ", r)
}
