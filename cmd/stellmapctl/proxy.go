package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// proxyPageItems is how many proxies are asked for at once: what the server gives at most.
const proxyPageItems = 250

// A proxy is one stream of an xDS client.
type proxy struct {
	Node             string      `json:"node"`
	Member           uint64      `json:"member"`
	Number           uint64      `json:"number"`
	Kind             string      `json:"kind"`
	State            string      `json:"state"`
	Region           string      `json:"region"`
	Zone             string      `json:"zone,omitempty"`
	Namespace        string      `json:"namespace"`
	Service          string      `json:"service,omitempty"`
	Cluster          string      `json:"cluster,omitempty"`
	Protocol         string      `json:"protocol"`
	Peer             string      `json:"peer"`
	ConnectedAt      string      `json:"connectedAt"`
	UpstreamCount    int         `json:"upstreamCount"`
	Upstreams        []string    `json:"upstreams,omitempty"`
	UpstreamsFrom    string      `json:"upstreamsFrom,omitempty"`
	UpstreamsVersion uint64      `json:"upstreamsVersion,omitempty"`
	Types            []proxyType `json:"types,omitempty"`
}

type proxyType struct {
	Type          string           `json:"type"`
	State         string           `json:"state"`
	Since         string           `json:"since"`
	Wildcard      bool             `json:"wildcard"`
	Subscribed    int              `json:"subscribed"`
	Resources     int              `json:"resources"`
	SentRevision  uint64           `json:"sentRevision"`
	AckedRevision uint64           `json:"ackedRevision"`
	AckedAt       string           `json:"ackedAt,omitempty"`
	InSync        bool             `json:"inSync"`
	Silent        bool             `json:"silent,omitempty"`
	RejectedCount int              `json:"rejectedCount"`
	Rejected      []proxyRejection `json:"rejected,omitempty"`
}

type proxyRejection struct {
	Resource string `json:"resource"`
	Reason   string `json:"reason"`
	Since    string `json:"since"`
}

type proxyPage struct {
	Proxies    []proxy         `json:"proxies"`
	Count      int             `json:"count"`
	NextCursor string          `json:"nextCursor,omitempty"`
	Members    []memberProxies `json:"members"`
}

type memberProxies struct {
	ID      uint64 `json:"id"`
	Proxies int    `json:"proxies"`
	Error   string `json:"error,omitempty"`
}

func (c *ctl) proxyCommand() *cobra.Command {
	group := c.group(&cobra.Command{
		Use:   "proxy",
		Short: "The proxies that are connected, and what they have accepted",
		Long: `proxy shows the xDS clients, Envoys and gRPC processes, of all members: who is in
order, what each has accepted, and what it lacks or refuses.`,
		Example: `  stellmapctl proxy status
  stellmapctl proxy diff web-1
  stellmapctl proxy list --state rejected`,
	})
	group.AddCommand(c.proxyStatusCommand(), c.proxyListCommand(), c.proxyConfigCommand(), c.proxyDiffCommand(), c.proxyExplainCommand())
	return group
}

func (c *ctl) proxyListCommand() *cobra.Command {
	var filters selection
	var limit uint
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Who is connected, to which member, and who lacks or refuses something",
		Long: `list shows the connected proxies of all members by member and node, and of each
type the revision that it has accepted; a star says that more was sent. STATE is

  synced    it has accepted all there is to send
  pending   something is to be sent to it, or was sent and is not answered yet
  silent    something was not answered in time
  rejected  it has refused something; -o wide says what and why

A member that does not say what its proxies are is told, with exit code 1.`,
		Example: `  stellmapctl proxy list
  stellmapctl proxy list --state rejected -o wide
  stellmapctl proxy list --node web-1 -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.proxies(cmd.Context(), filters.query(), limit)
			if err != nil {
				return err
			}
			if err := c.show(c.proxiesView(all)); err != nil {
				return err
			}
			return all.missing()
		},
	}
	proxyFilters(cmd, &filters)
	cmd.Flags().UintVar(&limit, "limit", 0, "show no more than so many; 0 shows all")
	return cmd
}

// proxyFilters are the flags that say which proxies are shown.
func proxyFilters(cmd *cobra.Command, filters *selection) {
	flags := cmd.Flags()
	filters.list(flags, "node", "", "node", "proxies with a node id; repeatable, like the next ones: any of them")
	filters.list(flags, "member", "", "member", "those of a member")
	filters.list(flags, "region", "", "region", "those in a region")
	filters.list(flags, "zone", "", "zone", "those in a zone")
	filters.list(flags, "kind", "", "kind", "envoy, gateway or grpc")
	filters.list(flags, "state", "", "state", "synced, pending, silent or rejected")
}

// query is what the filters say.
func (s *selection) query() url.Values {
	query := make(url.Values)
	for _, f := range s.filters {
		if given := f.given(); len(given) > 0 {
			query[f.parameter] = given
		}
	}
	return query
}

// proxies reads the list of proxies, page by page; a limit of 0 is all of it.
func (c *ctl) proxies(ctx context.Context, query url.Values, limit uint) (proxyPage, error) {
	out := proxyPage{Proxies: []proxy{}}
	for {
		size := uint(proxyPageItems)
		if limit > 0 {
			size = min(size, limit-uint(len(out.Proxies)))
		}
		query.Set("limit", strconv.FormatUint(uint64(size), 10))
		if out.NextCursor != "" {
			query.Set("cursor", out.NextCursor)
		}
		var part proxyPage
		if err := c.call(ctx, request{doing: "proxy list", method: http.MethodGet, path: "/api/v2/proxies?" + query.Encode()}, &part); err != nil {
			return out, err
		}
		out.Proxies, out.Count, out.NextCursor, out.Members = append(out.Proxies, part.Proxies...), part.Count, part.NextCursor, part.Members
		if out.NextCursor == "" || limit > 0 && uint(len(out.Proxies)) >= limit {
			return out, nil
		}
	}
}

// missing is an error when a member has not said what its proxies are.
func (p *proxyPage) missing() error {
	return incomplete("proxy list", "not all members have said what their proxies are", p.Members)
}

// incomplete is an error when one of the members has not answered.
func incomplete(doing, why string, members []memberProxies) error {
	f := &failure{doing: doing, code: "incomplete", exit: exitFailed, why: why, next: "stellmapctl status shows which members are there"}
	for _, m := range members {
		if m.Error != "" {
			f.fields = append(f.fields, fieldProblem{fmt.Sprintf("member %d", m.ID), m.Error})
		}
	}
	if len(f.fields) == 0 {
		return nil
	}
	return f
}

func (c *ctl) proxiesView(p proxyPage) view {
	v := view{
		whole: p, items: []any{},
		columns: []column{{"NODE", false}, {"MEMBER", false}, {"KIND", false}, {"STATE", false}, {"REGION", false}, {"ZONE", false}, {"CONNECTED", false},
			{"CDS", false}, {"EDS", false}, {"LDS", false}, {"RDS", false}, {"PEER", true}, {"PROTOCOL", true}, {"UPSTREAMS", true}, {"REJECTED", true}},
		foot: fmt.Sprintf("%d of %s", len(p.Proxies), quantity(p.Count, "proxy", "proxies")),
	}
	for _, one := range p.Proxies {
		v.items = append(v.items, one)
		v.names = append(v.names, one.Node)
		v.rows = append(v.rows, []string{one.Node, fmt.Sprint(one.Member), one.Kind, one.State, one.Region, one.Zone, c.ageOf(one.ConnectedAt),
			one.accepted("cds"), one.accepted("eds"), one.accepted("lds"), one.accepted("rds"), one.Peer, one.Protocol, one.upstreams(), one.rejections()})
	}
	return v
}

// accepted is the revision of a type that the proxy has accepted; "" where it does not ask for the type.
func (p *proxy) accepted(name string) string {
	for _, t := range p.Types {
		if t.Type != name {
			continue
		}
		text := fmt.Sprint(t.AckedRevision)
		if !t.InSync {
			text += "*"
		}
		return text
	}
	return ""
}

func (p *proxy) upstreams() string {
	text := strings.Join(p.Upstreams, ",")
	if more := p.UpstreamCount - len(p.Upstreams); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if p.UpstreamsVersion > 0 {
		text += fmt.Sprintf(" by version %d of its service's", p.UpstreamsVersion)
	}
	return text
}

func (p *proxy) rejections() string {
	var out []string
	for _, t := range p.Types {
		for _, r := range t.Rejected {
			out = append(out, fmt.Sprintf("%s %s: %s", t.Type, r.Resource, r.Reason))
		}
		if more := t.RejectedCount - len(t.Rejected); more > 0 {
			out = append(out, fmt.Sprintf("%d more of %s", more, t.Type))
		}
	}
	return strings.Join(out, "; ")
}
