package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// proxyResourcePage is how many resources of a proxy are asked for at once: what the server gives at most.
const proxyResourcePage = 500

// A proxyDetail is what the proxies of a node have, resource by resource.
type proxyDetail struct {
	Node       string          `json:"node"`
	Proxies    []proxy         `json:"proxies"`
	Resources  []proxyResource `json:"resources"`
	Count      int             `json:"count"`
	NextCursor string          `json:"nextCursor,omitempty"`
	Members    []memberProxies `json:"members"`
}

type proxyResource struct {
	Member uint64        `json:"member"`
	Number uint64        `json:"number"`
	Type   string        `json:"type"`
	Name   string        `json:"name"`
	State  string        `json:"state"`
	Since  string        `json:"since,omitempty"`
	Reason string        `json:"reason,omitempty"`
	Causes []policyCause `json:"causes,omitempty"`
	Wanted *proxyContent `json:"wanted,omitempty"`
	Sent   *proxyContent `json:"sent,omitempty"`
	Acked  *proxyContent `json:"acked,omitempty"`
}

type proxyContent struct {
	Revision     uint64          `json:"revision"`
	Hash         string          `json:"hash"`
	Content      json.RawMessage `json:"content,omitempty"`
	LeftOutBytes int             `json:"leftOutBytes,omitempty"`
}

type policyCause struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	Version   uint64 `json:"version"`
	Revision  uint64 `json:"revision"`
	By        string `json:"by"`
	At        string `json:"at"`
}

func (c *ctl) proxyStatusCommand() *cobra.Command {
	var filters selection
	cmd := &cobra.Command{
		Use:   "status",
		Short: "One line for each proxy: what is in order, and since when what is not",
		Long: `status shows for each connected proxy of all members and for each type what it asks
for: SYNCED, or since when it is PENDING (something is to be sent, or is not answered
yet), SILENT (it has not answered in time) or REJECTED (it refuses so many resources;
proxy diff says which and why). ACKED is the newest revision that it has accepted, LAG
how long it has been behind. A dash is a type that it does not ask for.`,
		Example: `  stellmapctl proxy status
  stellmapctl proxy status --state rejected`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.proxies(cmd.Context(), filters.query(), 0)
			if err != nil {
				return err
			}
			if err := c.show(c.proxyStatusView(all)); err != nil {
				return err
			}
			return all.missing()
		},
	}
	proxyFilters(cmd, &filters)
	return cmd
}

func (c *ctl) proxyStatusView(p proxyPage) view {
	v := view{
		whole: p, items: []any{},
		columns: []column{{"NODE", false}, {"KIND", false}, {"REGION", false}, {"CDS", false}, {"EDS", false}, {"LDS", false}, {"RDS", false},
			{"ACKED", false}, {"LAG", false}, {"MEMBER", false}, {"PEER", true}},
		foot: quantity(p.Count, "proxy", "proxies"),
	}
	for _, one := range p.Proxies {
		v.items = append(v.items, one)
		v.names = append(v.names, one.Node)
		v.rows = append(v.rows, []string{one.Node, one.Kind, one.Region, c.typeState(&one, "cds"), c.typeState(&one, "eds"), c.typeState(&one, "lds"), c.typeState(&one, "rds"),
			fmt.Sprint(one.newest()), c.lag(&one), fmt.Sprint(one.Member), one.Peer})
	}
	return v
}

// typeState is how a proxy stands with a type, and since when where that is not in order.
func (c *ctl) typeState(p *proxy, name string) string {
	for _, t := range p.Types {
		switch {
		case t.Type != name:
			continue
		case t.State == "synced":
			return "SYNCED"
		case t.State == "rejected":
			return fmt.Sprintf("REJECTED(%d) %s", t.RejectedCount, c.ageOf(t.Since))
		}
		return strings.ToUpper(t.State) + " " + c.ageOf(t.Since)
	}
	return ""
}

// newest is the newest revision of which the proxy has accepted something.
func (p *proxy) newest() uint64 {
	newest := uint64(0)
	for _, t := range p.Types {
		newest = max(newest, t.AckedRevision)
	}
	return newest
}

// lag is how long a proxy has not had all that there is.
func (c *ctl) lag(p *proxy) string {
	longest := time.Duration(0)
	for _, t := range p.Types {
		since, err := time.Parse(time.RFC3339, t.Since)
		if t.State != "synced" && err == nil {
			longest = max(longest, c.now().Sub(since))
		}
	}
	return age(longest)
}

// proxyLooking is what the commands about one proxy have in common.
type proxyLooking struct {
	types, resources []string
}

func (l *proxyLooking) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&l.types, "type", nil, "cds, eds, lds or rds; repeatable")
	flags.StringArrayVar(&l.resources, "resource", nil, "a resource's name, such as orders.prod; repeatable")
}

func (l *proxyLooking) query() url.Values {
	q := make(url.Values)
	for name, values := range map[string][]string{"type": l.types, "resource": l.resources} {
		if len(values) > 0 {
			q[name] = values
		}
	}
	return q
}

func oneNode(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0 || strings.TrimSpace(args[0]) == "":
		return usagef("%s wants the node id of a proxy, as proxy list shows it", nameOf(cmd))
	case len(args) > 1:
		return usagef("%s takes one node id, got %q too", nameOf(cmd), args[1])
	}
	return nil
}

func (c *ctl) proxyConfigCommand() *cobra.Command {
	var l proxyLooking
	cmd := &cobra.Command{
		Use:   "config NODE",
		Short: "What a proxy has accepted, as Envoy writes it",
		Long: `config lists what the proxy with a node id has accepted: its clusters, endpoints,
listeners and routes, each with the revision by which it became what it is. With -o
json or yaml the contents are there, too, as Envoy's own config dump has them. What the
proxy has from before it connected, and has changed since, is known by its hash only.`,
		Example: `  stellmapctl proxy config web-1
  stellmapctl proxy config web-1 --type eds --resource orders.prod -o json`,
		Args: oneNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := l.query()
			if c.output == formatJSON || c.output == formatYAML || c.output == formatJSONL {
				q.Set("contents", "true")
			}
			d, err := c.detail(cmd.Context(), "proxy config", args[0], q)
			if err != nil {
				return err
			}
			if err := c.show(configView(d)); err != nil {
				return err
			}
			return d.missing("proxy config")
		},
	}
	l.flags(cmd)
	return cmd
}

// A heldConfig is one resource that a proxy has accepted.
type heldConfig struct {
	Type         string          `json:"type"`
	Name         string          `json:"name"`
	Revision     uint64          `json:"revision"`
	Hash         string          `json:"hash"`
	Member       uint64          `json:"member"`
	Number       uint64          `json:"number"`
	State        string          `json:"state"`
	Content      json.RawMessage `json:"content,omitempty"`
	LeftOutBytes int             `json:"leftOutBytes,omitempty"`
}

func configView(d proxyDetail) view {
	held := []heldConfig{}
	v := view{
		items:   []any{},
		columns: []column{{"TYPE", false}, {"NAME", false}, {"REVISION", false}, {"HASH", false}, {"STATE", false}, {"MEMBER", true}, {"PROXY", true}},
	}
	for _, r := range d.Resources {
		if r.Acked == nil {
			continue
		}
		one := heldConfig{r.Type, r.Name, r.Acked.Revision, r.Acked.Hash, r.Member, r.Number, r.State, r.Acked.Content, r.Acked.LeftOutBytes}
		held = append(held, one)
		v.items = append(v.items, one)
		v.names = append(v.names, r.Type+" "+r.Name)
		v.rows = append(v.rows, []string{r.Type, r.Name, fmt.Sprint(one.Revision), one.Hash, r.State, fmt.Sprint(r.Member), fmt.Sprint(r.Number)})
	}
	v.whole = held
	v.foot = quantity(len(held), "resource", "resources")
	return v
}

func (c *ctl) proxyDiffCommand() *cobra.Command {
	var l proxyLooking
	cmd := &cobra.Command{
		Use:   "diff NODE",
		Short: "What the registry says now against what a proxy has accepted",
		Long: `diff compares, resource by resource, what the proxy with a node id should have by
now with what it has accepted: - is what it has, + is what it lacks. Of what it refuses
the words are told that it refused it with, and who edited the policy by which it came.
Nothing to show, and exit code 0, means that it is in order; otherwise the code is 1.`,
		Example: `  stellmapctl proxy diff web-1
  stellmapctl proxy diff web-1 --type rds`,
		Args: oneNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := l.query()
			q.Set("contents", "true")
			q["resourceState"] = []string{"waiting", "sent", "silent", "rejected"}
			d, err := c.detail(cmd.Context(), "proxy diff", args[0], q)
			if err != nil {
				return err
			}
			if err := c.show(c.diffView(d)); err != nil {
				return err
			}
			if err := d.missing("proxy diff"); err != nil || len(d.Resources) == 0 {
				return err
			}
			return &failure{doing: "proxy diff " + args[0], code: "differs", exit: exitFailed,
				why: fmt.Sprintf("it lacks %s", quantity(len(d.Resources), "resource", "resources"))}
		},
	}
	l.flags(cmd)
	return cmd
}

func (c *ctl) diffView(d proxyDetail) view {
	v := view{whole: d, items: []any{}}
	for _, r := range d.Resources {
		v.items = append(v.items, r)
		v.names = append(v.names, r.Type+" "+r.Name)
		v.parts = append(v.parts, c.resourceLines(&r)...)
	}
	return v
}

// resourceLines are what there is to say of a resource that a proxy lacks.
func (c *ctl) resourceLines(r *proxyResource) []view {
	out := c.standing("", r)
	for _, text := range contentDiff(r.Acked, r.Wanted) {
		out = append(out, view{line: text})
	}
	return out
}

// standing is how a proxy stands with a resource that is not in order, and by whom that came.
func (c *ctl) standing(indent string, r *proxyResource) []view {
	line := fmt.Sprintf("%s%s %s: %s for %s", indent, r.Type, r.Name, r.State, c.ageOf(r.Since))
	if r.Reason != "" {
		line += fmt.Sprintf(": %q", r.Reason)
	}
	out := []view{{line: line}}
	for _, cause := range r.Causes {
		out = append(out, view{line: indent + "  it came by " + c.causeText(cause)})
	}
	return out
}

func (c *ctl) causeText(p policyCause) string {
	return fmt.Sprintf("version %d of the policy of %s/%s, by %s %s ago (revision %d)", p.Version, p.Namespace, p.Service, p.By, c.ageOf(p.At), p.Revision)
}

// detail reads what the proxies of a node have, page by page.
func (c *ctl) detail(ctx context.Context, doing, node string, q url.Values) (proxyDetail, error) {
	out := proxyDetail{Node: node, Resources: []proxyResource{}}
	q.Set("limit", fmt.Sprint(proxyResourcePage))
	for {
		var part proxyDetail
		path := "/api/v2/proxies/" + url.PathEscape(node) + "?" + q.Encode()
		if err := c.call(ctx, request{doing: doing + " " + node, method: http.MethodGet, path: path}, &part); err != nil {
			return out, err
		}
		out.Proxies, out.Count, out.Members = part.Proxies, part.Count, part.Members
		out.Resources = append(out.Resources, part.Resources...)
		if part.NextCursor == "" {
			return out, nil
		}
		q.Set("cursor", part.NextCursor)
	}
}

// missing is an error when a member has not said all that it knows of the proxy.
func (d *proxyDetail) missing(doing string) error {
	return incomplete(doing+" "+d.Node, "not all members have said what they know of it", d.Members)
}
