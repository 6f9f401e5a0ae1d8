package httpapi

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// Proxies is what is known of the xDS clients of all members. Each member knows
// its own; whoever is asked asks the others.
type Proxies interface {
	// Propagation is how far a service, as it was at a revision, has come: at once
	// when all have it, else when they do or the wait is over.
	Propagation(ctx context.Context, k registry.ServiceKey, revision registry.Revision, wait time.Duration) ([]MemberPropagation, error)
	// List is a page of each member's proxies.
	List(ctx context.Context, q ProxyQuery) []MemberProxies
	// Detail is a page of what the proxies of a node have on each member.
	Detail(ctx context.Context, q ProxyDetailQuery) ([]MemberProxyDetail, error)
	// Load is what the proxies of each member report of the calls to a service.
	Load(ctx context.Context, k registry.ServiceKey) []MemberLoad
	// Explain is why each proxy of a node has a service, or one instance of it, as it has
	// it; and what the members say of the node.
	Explain(ctx context.Context, node string, k registry.ServiceKey, instance string) ([]ProxyExplanation, []MemberProxyDetail, error)
}

// MemberPropagation is how far a service has come among the proxies of one member.
type MemberPropagation struct {
	Member                   uint64
	Err                      error             // it did not answer
	Revision                 registry.Revision // up to which it has told its proxies
	Interested, Acknowledged int
	Pending                  []PendingProxy // those that have not; some of them, if they are many
	Refused                  []ProxyRefusal // of it, by how many refuse it
}

// A ProxyRefusal is one thing of a service that some proxies refuse for one reason.
type ProxyRefusal struct {
	Type, Resource, Reason string
	Proxies                int
	Nodes                  []string  // the first of them
	Since                  time.Time // the first of them does
	Cause                  *PolicyCause
}

// A PendingProxy has not accepted a service's revision yet.
type PendingProxy struct {
	Node, Peer     string
	Type, Resource string // the first that it lacks
	State          string // why: behind, waiting, sent, silent, stuck or rejected
	Since          time.Time
	Reason         string
}

// A ProxyQuery says which proxies are listed. Of what is empty, any will do.
type ProxyQuery struct {
	Members                              []uint64
	Nodes, Regions, Zones, Kinds, States []string

	After ProxyPlace // behind which the list goes on
	Limit int        // for each member
}

// A ProxyPlace is a place in the list of proxies; zero is its beginning.
type ProxyPlace struct {
	Member uint64
	Node   string
	Number uint64
}

// MemberProxies is a page of one member's proxies, by node.
type MemberProxies struct {
	Member  uint64
	Err     error // it did not answer
	Proxies []Proxy
	Count   int  // of those that match, on all pages
	More    bool // there are others behind the last
}

// A Proxy is one stream of an xDS client.
type Proxy struct {
	Number                                                                       uint64 // of its member's streams
	Node, Cluster, Service, Namespace, Region, Zone, Kind, Protocol, Peer, State string
	Connected                                                                    time.Time
	UpstreamCount                                                                int
	Upstreams                                                                    []string // the first of them
	UpstreamsFrom                                                                string   // default, node or document
	UpstreamsVersion                                                             uint64   // of the document; 0 = none holds
	Types                                                                        []ProxyType
}

// A ProxyType is what a proxy has of one type.
type ProxyType struct {
	Type                  string
	Wildcard              bool
	Subscribed, Resources int
	State                 string
	Since                 time.Time // when it began
	Sent, Acked           registry.Revision
	AckedAt               time.Time // zero = never
	InSync, Silent        bool
	RejectedCount         int
	Rejected              []ProxyRejection // the first of them
}

// A ProxyRejection is one content that a proxy has refused.
type ProxyRejection struct {
	Resource, Reason string
	Since            time.Time
}

// The words of the list of proxies.
var (
	ProxyKinds  = []string{"envoy", "gateway", "grpc"}
	ProxyStates = []string{"synced", "pending", "silent", "rejected"}
)

// The bounds of these calls; those with capitals are the xDS server's, too.
const (
	PropagationWaitMax = 30 * time.Second
	ProxyPageMax       = 250
	proxiesAnswerMax   = 4 * time.Second // for the members' answers, beyond the wait
	pendingShownMax    = 100
	refusedShownMax    = 50
)

func (a *API) proxyRoutes() []route {
	if a.proxies == nil {
		return nil
	}
	read := func(pattern string, long bool, serve handler) route {
		return route{method: http.MethodGet, pattern: pattern, surface: surfaceV2, reads: true, long: long, serve: conditionless(serve)}
	}
	return []route{
		read("/api/v2/namespaces/{ns}/services/{svc}/propagation", true, a.v2Propagation).as(operation{
			id: "getPropagation", says: "Tells how far a revision of a service has come among the proxies", query: propagationQuery,
			answers: ok(v2Propagation{}), refuses: []string{"not_found"},
		}),
		read("/api/v2/namespaces/{ns}/services/{svc}/load", true, a.v2Load).as(operation{
			id: "getLoad", says: "Tells what the proxies report of the calls to a service: how many, to which zone, and how they ended", query: freshQuery,
			answers: ok(v2Load{}), refuses: []string{"not_found"},
		}),
		read("/api/v2/proxies", false, a.v2Proxies).as(operation{
			id: "listProxies", says: "Lists the proxies that are connected", query: proxiesQuery, answers: ok(v2ProxyPage{}),
		}),
		read("/api/v2/proxies/{proxy}", false, a.v2Proxy).as(operation{
			id: "getProxy", says: "Tells what a proxy has, was sent and should have, resource by resource", query: proxyDetailQuery,
			answers: ok(v2ProxyDetail{}), refuses: []string{"not_found"},
		}),
		read("/api/v2/proxies/{proxy}/explain", false, a.v2ExplainProxy).as(operation{
			id: "explainProxy", says: "Tells why a proxy has the instances of a service where it has them, or not", query: explainQuery,
			answers: ok(v2ProxyExplained{}), refuses: []string{"not_found"},
		}),
	}
}

var (
	propagationQuery = append([]string{revisionName, waitName}, freshQuery...)
	proxiesQuery     = []string{"node*", "member*", "region*", "zone*", "kind*", "state*", limitName, cursorName}
)

type v2Propagation struct {
	Namespace    string                `json:"namespace"`
	Service      string                `json:"service"`
	Revision     registry.Revision     `json:"revision"`
	Complete     bool                  `json:"complete"` // all members have answered, and all proxies have it
	Interested   int                   `json:"interested"`
	Acknowledged int                   `json:"acknowledged"`
	Pending      []v2PendingProxy      `json:"pending,omitempty"`
	Refused      []v2ProxyRefusal      `json:"refused,omitempty"`
	Members      []v2MemberPropagation `json:"members"`
}

type v2PendingProxy struct {
	Node     string `json:"node"`
	Member   uint64 `json:"member"`
	Peer     string `json:"peer"`
	Type     string `json:"type"`
	Resource string `json:"resource"`
	State    string `json:"state"`
	Since    string `json:"since"`
	Reason   string `json:"reason,omitempty"`
}

// v2ProxyRefusal is what proxies of one member refuse of a service.
type v2ProxyRefusal struct {
	Member   uint64         `json:"member"`
	Type     string         `json:"type"`
	Resource string         `json:"resource"`
	Proxies  int            `json:"proxies"`
	Nodes    []string       `json:"nodes"` // the first of them
	Since    string         `json:"since"` // the first of them does
	Reason   string         `json:"reason"`
	Cause    *v2PolicyCause `json:"cause,omitempty"`
}

type v2MemberPropagation struct {
	ID           uint64            `json:"id"`
	Revision     registry.Revision `json:"revision"` // up to which it has told its proxies
	Interested   int               `json:"interested"`
	Acknowledged int               `json:"acknowledged"`
	Error        string            `json:"error,omitempty"` // why it did not say
}

// v2Propagation is how far a revision of a service has come among all proxies.
func (a *API) v2Propagation(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	p.only(propagationQuery...)
	revision, wait, fresh := p.revision(), p.wait(PropagationWaitMax), p.freshness(a)
	if err := p.err(); err != nil {
		return err
	}
	service, err := a.service(w, q, fresh)
	if err != nil {
		return err
	}
	if revision == 0 {
		revision = service.Revision
	}
	ctx, cancel := context.WithTimeout(q.Context(), wait+proxiesAnswerMax)
	defer cancel()
	answers, err := a.proxies.Propagation(ctx, service.Key, revision, wait)
	if err != nil {
		return err
	}
	answer := propagated(service.Key, revision, answers)
	writeJSON(w, http.StatusOK, typeJSON, &answer)
	return nil
}

// service is the one of the path. What it was read at is told.
func (a *API) service(w http.ResponseWriter, q *http.Request, fresh freshness) (registry.ServiceMatch, error) {
	namespace, err := pathNamespace(q)
	if err != nil {
		return registry.ServiceMatch{}, err
	}
	name := strings.TrimSpace(q.PathValue("svc"))
	if name == "" {
		return registry.ServiceMatch{}, invalid("service", "is missing in the path")
	}
	ctx, cancel := context.WithTimeout(q.Context(), a.limits.timeout)
	defer cancel()
	page, err := a.registry.Services(ctx, registry.Query{
		Namespace: namespace, Services: []string{name}, Statuses: []string{"any"}, Consistency: fresh.Consistency,
	}, registry.Paging{})
	if err != nil {
		return registry.ServiceMatch{}, err
	}
	setRevision(w, page.Revision)
	fresh.tell(w)
	if len(page.Services) == 0 {
		return registry.ServiceMatch{}, registry.MissingService(registry.ServiceKey{Namespace: strings.TrimSpace(namespace), Service: name})
	}
	return page.Services[0], nil
}

// propagated adds up what the members say.
func propagated(k registry.ServiceKey, revision registry.Revision, answers []MemberPropagation) v2Propagation {
	out := v2Propagation{Namespace: k.Namespace, Service: k.Service, Revision: revision, Complete: true}
	for _, m := range answers {
		one := v2MemberPropagation{ID: m.Member, Revision: m.Revision, Interested: m.Interested, Acknowledged: m.Acknowledged}
		if m.Err != nil {
			one.Error = m.Err.Error()
		}
		out.Complete = out.Complete && m.Err == nil && m.Interested == m.Acknowledged
		out.Interested += m.Interested
		out.Acknowledged += m.Acknowledged
		out.Members = append(out.Members, one)
		for _, p := range m.Pending {
			out.Pending = append(out.Pending, v2PendingProxy{p.Node, m.Member, p.Peer, p.Type, p.Resource, p.State, timeText(p.Since), p.Reason})
		}
	}
	for _, m := range answers {
		for i := range m.Refused {
			out.Refused = append(out.Refused, m.Refused[i].shown(m.Member))
		}
	}
	slices.SortStableFunc(out.Refused, func(a, b v2ProxyRefusal) int { return cmp.Compare(b.Proxies, a.Proxies) })
	out.Refused = out.Refused[:min(len(out.Refused), refusedShownMax)]
	slices.SortStableFunc(out.Pending, func(a, b v2PendingProxy) int { return cmp.Compare(a.Node, b.Node) })
	out.Pending = out.Pending[:min(len(out.Pending), pendingShownMax)]
	return out
}

func (r *ProxyRefusal) shown(member uint64) v2ProxyRefusal {
	out := v2ProxyRefusal{Member: member, Type: r.Type, Resource: r.Resource, Proxies: r.Proxies, Nodes: append([]string{}, r.Nodes...), Since: timeText(r.Since), Reason: r.Reason}
	if r.Cause != nil {
		out.Cause = &shownCauses([]PolicyCause{*r.Cause})[0]
	}
	return out
}

// timeText is a time as answers have it.
func timeText(t time.Time) string { return t.UTC().Format(timeForm) }

// revision is a whole number from 1 on, or 0 when there is none.
func (p *parameters) revision() registry.Revision {
	text := strings.TrimSpace(p.first("revision"))
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 53)
	if err != nil || n == 0 {
		p.add("revision", fmt.Sprintf("%q is not a revision: a whole number from 1 on, as a write answers with, or none for the service's last", clip(text)))
	}
	return registry.Revision(n)
}

// wait is how long a call may wait for what it asks for.
func (p *parameters) wait(most time.Duration) time.Duration {
	text := strings.TrimSpace(p.first("wait"))
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > most {
		p.add("wait", fmt.Sprintf("%q is not a time from 0s to %v, such as 10s", clip(text), most))
	}
	return d
}

type v2Proxy struct {
	Node             string        `json:"node"`
	Member           uint64        `json:"member"`
	Number           uint64        `json:"number"` // of the member's proxies
	Kind             string        `json:"kind"`
	State            string        `json:"state"`
	Region           string        `json:"region"`
	Zone             string        `json:"zone,omitempty"`
	Namespace        string        `json:"namespace"`
	Service          string        `json:"service,omitempty"`
	Cluster          string        `json:"cluster,omitempty"`
	Protocol         string        `json:"protocol"`
	Peer             string        `json:"peer"`
	ConnectedAt      string        `json:"connectedAt"`
	UpstreamCount    int           `json:"upstreamCount"`
	Upstreams        []string      `json:"upstreams,omitempty"`
	UpstreamsFrom    string        `json:"upstreamsFrom,omitempty"`    // default, node or document
	UpstreamsVersion uint64        `json:"upstreamsVersion,omitempty"` // of the document of the proxy's service
	Types            []v2ProxyType `json:"types,omitempty"`
}

type v2ProxyType struct {
	Type          string             `json:"type"`
	State         string             `json:"state"`
	Since         string             `json:"since"`
	Wildcard      bool               `json:"wildcard"`
	Subscribed    int                `json:"subscribed"`
	Resources     int                `json:"resources"`
	Sent          registry.Revision  `json:"sentRevision"`
	Acked         registry.Revision  `json:"ackedRevision"`
	AckedAt       string             `json:"ackedAt,omitempty"`
	InSync        bool               `json:"inSync"`
	Silent        bool               `json:"silent,omitempty"`
	RejectedCount int                `json:"rejectedCount"`
	Rejected      []v2ProxyRejection `json:"rejected,omitempty"`
}

type v2ProxyRejection struct {
	Resource string `json:"resource"`
	Reason   string `json:"reason"`
	Since    string `json:"since"`
}

type v2MemberProxies struct {
	ID      uint64 `json:"id"`
	Proxies int    `json:"proxies"`
	Error   string `json:"error,omitempty"`
}

// v2Proxies lists the proxies that are connected, by member and node.
func (a *API) v2Proxies(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	p.only(proxiesQuery...)
	query := ProxyQuery{
		Members: p.ids("member"), Nodes: p.all("node"), Regions: p.all("region"), Zones: p.all("zone"),
		Kinds: p.oneOf("kind", ProxyKinds), States: p.oneOf("state", ProxyStates), After: p.proxyPlace(), Limit: p.limit(),
	}
	if query.Limit < 0 || query.Limit > ProxyPageMax {
		p.add(limitName, fmt.Sprintf("%d is not allowed: at most %d proxies come at once, and nextCursor leads to the others", query.Limit, ProxyPageMax))
	}
	if query.Limit == 0 {
		query.Limit = ProxyPageMax
	}
	if err := p.err(); err != nil {
		return err
	}
	setRevision(w, registry.Revision(a.cluster().Applied))
	answer := proxyPage(a.proxies.List(q.Context(), query), query, looker(q.Context()))
	writeJSON(w, http.StatusOK, typeJSON, &answer)
	return nil
}

type v2ProxyPage struct {
	Proxies    []v2Proxy         `json:"proxies"`
	Count      int               `json:"count"`
	NextCursor string            `json:"nextCursor,omitempty"`
	Members    []v2MemberProxies `json:"members"`
}

// proxyPage is one page of what the members have answered, as far as it may be looked at.
func proxyPage(answers []MemberProxies, q ProxyQuery, may func(*Proxy) bool) v2ProxyPage {
	out := v2ProxyPage{Proxies: []v2Proxy{}, Members: []v2MemberProxies{}}
	more, last := false, q.After
	for _, m := range answers {
		one := v2MemberProxies{ID: m.Member, Proxies: m.Count}
		if m.Err != nil {
			one.Error = m.Err.Error()
		}
		out.Members = append(out.Members, one)
		out.Count += m.Count
		if m.Member < q.After.Member {
			continue
		}
		room := min(len(m.Proxies), q.Limit-len(out.Proxies))
		for i := range m.Proxies[:room] {
			last = ProxyPlace{Member: m.Member, Node: m.Proxies[i].Node, Number: m.Proxies[i].Number}
			if !may(&m.Proxies[i]) {
				out.Count--
				out.Members[len(out.Members)-1].Proxies--
				continue
			}
			out.Proxies = append(out.Proxies, m.Proxies[i].shown(m.Member))
		}
		more = more || m.More || room < len(m.Proxies)
	}
	if more {
		out.NextCursor = last.String()
	}
	return out
}

func (p *Proxy) shown(member uint64) v2Proxy {
	out := v2Proxy{
		Node: p.Node, Member: member, Number: p.Number, Kind: p.Kind, State: p.State, Region: p.Region, Zone: p.Zone, Namespace: p.Namespace, Service: p.Service, Cluster: p.Cluster,
		Protocol: p.Protocol, Peer: p.Peer, ConnectedAt: timeText(p.Connected), UpstreamCount: p.UpstreamCount, Upstreams: p.Upstreams,
		UpstreamsFrom: p.UpstreamsFrom, UpstreamsVersion: p.UpstreamsVersion,
	}
	for _, t := range p.Types {
		one := v2ProxyType{
			Type: t.Type, State: t.State, Since: timeText(t.Since), Wildcard: t.Wildcard, Subscribed: t.Subscribed, Resources: t.Resources, Sent: t.Sent, Acked: t.Acked,
			InSync: t.InSync, Silent: t.Silent, RejectedCount: t.RejectedCount,
		}
		if !t.AckedAt.IsZero() {
			one.AckedAt = timeText(t.AckedAt)
		}
		for _, r := range t.Rejected {
			one.Rejected = append(one.Rejected, v2ProxyRejection{r.Resource, r.Reason, timeText(r.Since)})
		}
		out.Types = append(out.Types, one)
	}
	return out
}

// String is the place as a cursor.
func (p ProxyPlace) String() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d/%d/%s", p.Member, p.Number, p.Node))
}

func parseProxyPlace(text string) (ProxyPlace, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return ProxyPlace{}, err
	}
	member, rest, _ := strings.Cut(string(raw), "/")
	number, node, found := strings.Cut(rest, "/")
	if !found {
		return ProxyPlace{}, fmt.Errorf("%q has not three parts", raw)
	}
	place := ProxyPlace{Node: node}
	if place.Member, err = strconv.ParseUint(member, 10, 64); err != nil {
		return ProxyPlace{}, err
	}
	place.Number, err = strconv.ParseUint(number, 10, 64)
	return place, err
}

func (p *parameters) proxyPlace() ProxyPlace {
	text := p.first(cursorName)
	if text == "" {
		return ProxyPlace{}
	}
	place, err := parseProxyPlace(text)
	if err != nil {
		p.add(cursorName, fmt.Sprintf("%q is not one that a list of proxies has given: take nextCursor as it is, or leave it out to begin anew", clip(text)))
	}
	return place
}

// oneOf are the values of a parameter that knows a few words.
func (p *parameters) oneOf(name string, words []string) []string {
	given := p.words(name)
	for _, word := range given {
		if !slices.Contains(words, word) {
			p.add(name, fmt.Sprintf("%q is not known: %s", clip(word), strings.Join(words, ", ")))
		}
	}
	return given
}

// ids are the values of a parameter that are numbers of nodes.
func (p *parameters) ids(name string) []uint64 {
	var out []uint64
	for _, word := range p.words(name) {
		id, err := strconv.ParseUint(word, 10, 63)
		if err != nil || id == 0 {
			p.add(name, fmt.Sprintf("%q is not the id of a member: a whole number from 1 on", clip(word)))
		}
		out = append(out, id)
	}
	return out
}
