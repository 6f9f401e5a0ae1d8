package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// A ProxyDetailQuery says of which node what is shown. Of what is empty, any will do.
type ProxyDetailQuery struct {
	Node                     string
	Types, Resources, States []string
	Contents                 bool

	After ProxyResourcePlace // behind which the list goes on
	Limit int                // for each member
}

// A ProxyResourcePlace is a place in the list of a node's resources; zero is its beginning.
type ProxyResourcePlace struct {
	Member, Number uint64
	Type, Name     string
}

// MemberProxyDetail is a page of what the proxies of a node have on one member.
type MemberProxyDetail struct {
	Member    uint64
	Err       error   // it did not answer
	Proxies   []Proxy // the node's, on this member
	Stuck     []uint64
	Resources []ProxyResource
	Count     int  // of those that match, on all pages
	More      bool // there are others behind the last
}

// A ProxyResource is what a proxy has under a name.
type ProxyResource struct {
	Number              uint64 // of the proxy
	Type, Name, State   string
	Since               time.Time // zero for what is in order
	Reason              string
	Causes              []PolicyCause
	Wanted, Sent, Acked ProxyContent // what holds now, was sent last, and was accepted last
}

// ProxyContent is what a resource is at a revision; the hash is 0 where there is none.
type ProxyContent struct {
	Hash     uint64
	Revision registry.Revision
	Content  json.RawMessage // where it was asked for and is known
	LeftOut  int             // the size of one that is too large
}

// A PolicyCause is an edit of a policy by which a resource became what a proxy refuses.
type PolicyCause struct {
	Service  registry.ServiceKey
	Version  uint64
	Revision registry.Revision
	By       string
	At       time.Time
}

// The words of a proxy's resources.
var (
	ProxyTypes          = []string{"cds", "eds", "lds", "rds"}
	ProxyResourceStates = []string{"synced", "absent", "waiting", "sent", "silent", "rejected"}
)

// ProxyResourcesMax is how many resources come in one page; it is the xDS server's, too.
const ProxyResourcesMax = 500

const contentsName = "contents"

var proxyDetailQuery = []string{"type*", "resource*", "resourceState*", contentsName, limitName, cursorName}

type v2ProxyDetail struct {
	Node       string            `json:"node"`
	Proxies    []v2Proxy         `json:"proxies"` // its streams
	Resources  []v2ProxyResource `json:"resources"`
	Count      int               `json:"count"`
	NextCursor string            `json:"nextCursor,omitempty"`
	Members    []v2MemberProxies `json:"members"`
}

type v2ProxyResource struct {
	Member uint64          `json:"member"`
	Number uint64          `json:"number"`
	Type   string          `json:"type"`
	Name   string          `json:"name"`
	State  string          `json:"state"`
	Since  string          `json:"since,omitempty"`
	Reason string          `json:"reason,omitempty"`
	Causes []v2PolicyCause `json:"causes,omitempty"`
	Wanted *v2ProxyContent `json:"wanted,omitempty"`
	Sent   *v2ProxyContent `json:"sent,omitempty"`
	Acked  *v2ProxyContent `json:"acked,omitempty"`
}

type v2ProxyContent struct {
	Revision     registry.Revision `json:"revision"`
	Hash         string            `json:"hash"`
	Content      json.RawMessage   `json:"content,omitempty"`
	LeftOutBytes int               `json:"leftOutBytes,omitempty"`
}

type v2PolicyCause struct {
	Namespace string            `json:"namespace"`
	Service   string            `json:"service"`
	Version   uint64            `json:"version"`
	Revision  registry.Revision `json:"revision"`
	By        string            `json:"by"`
	At        string            `json:"at"`
}

// v2Proxy tells what the proxies of a node have, resource by resource.
func (a *API) v2Proxy(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	p.only(proxyDetailQuery...)
	query := ProxyDetailQuery{
		Node: q.PathValue("proxy"), Types: p.oneOf("type", ProxyTypes), Resources: p.all("resource"), States: p.oneOf("resourceState", ProxyResourceStates),
		Contents: p.choice(contentsName, "false", "true") == "true", After: p.proxyResourcePlace(), Limit: p.limit(),
	}
	if query.Node == "" {
		p.add("proxy", "is missing in the path")
	}
	if query.Limit < 0 || query.Limit > ProxyResourcesMax {
		p.add(limitName, fmt.Sprintf("%d is not allowed: at most %d resources come at once, and nextCursor leads to the others", query.Limit, ProxyResourcesMax))
	}
	if query.Limit == 0 {
		query.Limit = ProxyResourcesMax
	}
	if err := p.err(); err != nil {
		return err
	}
	setRevision(w, registry.Revision(a.cluster().Applied))
	answers, err := a.proxies.Detail(q.Context(), query)
	if err != nil {
		return err
	}
	answer := proxyDetail(q.Context(), answers, query)
	if len(answer.Proxies) == 0 && answer.allSay() {
		return noProxy(query.Node)
	}
	writeJSON(w, http.StatusOK, typeJSON, &answer)
	return nil
}

func noProxy(node string) error {
	return &missingDocument{
		what: fmt.Sprintf("no proxy with the node id %q is connected", clip(node)),
		next: "/api/v2/proxies lists those that are",
	}
}

// allSay is whether all members have answered.
func (d *v2ProxyDetail) allSay() bool {
	for _, m := range d.Members {
		if m.Error != "" {
			return false
		}
	}
	return true
}

// proxyDetail is one page of what the members have answered, as far as it may be looked at.
func proxyDetail(ctx context.Context, answers []MemberProxyDetail, q ProxyDetailQuery) v2ProxyDetail {
	out := v2ProxyDetail{Node: q.Node, Proxies: []v2Proxy{}, Resources: []v2ProxyResource{}, Members: []v2MemberProxies{}}
	more, last := false, q.After
	for _, m := range answers {
		hidden := m.hide(looker(ctx))
		out.Members = append(out.Members, v2MemberProxies{ID: m.Member, Proxies: len(m.Proxies), Error: m.says()})
		for i := range m.Proxies {
			out.Proxies = append(out.Proxies, m.Proxies[i].shown(m.Member))
		}
		out.Count += m.Count
		if m.Member < q.After.Member || more { // what comes behind a full page is of the next one
			continue
		}
		room := min(len(m.Resources), q.Limit-len(out.Resources))
		for i := range m.Resources[:room] {
			r := &m.Resources[i]
			last = ProxyResourcePlace{Member: m.Member, Number: r.Number, Type: r.Type, Name: r.Name}
			if hidden[r.Number] {
				out.Count--
				continue
			}
			out.Resources = append(out.Resources, r.shown(ctx, m.Member))
		}
		more = m.More || room < len(m.Resources)
	}
	if more {
		out.NextCursor = last.String()
	}
	return out
}

// says is why a member has not told all.
func (m *MemberProxyDetail) says() string {
	switch {
	case m.Err != nil:
		return m.Err.Error()
	case len(m.Stuck) > 0:
		return fmt.Sprintf("%d of its %d proxies with this node id take nothing that they are sent, so what they have cannot be told", len(m.Stuck), len(m.Proxies))
	}
	return ""
}

func (r *ProxyResource) shown(ctx context.Context, member uint64) v2ProxyResource {
	reason, causes := r.whyRefused(ctx)
	out := v2ProxyResource{
		Member: member, Number: r.Number, Type: r.Type, Name: r.Name, State: r.State, Reason: reason,
		Causes: shownCauses(causes), Wanted: r.Wanted.shown(), Sent: r.Sent.shown(), Acked: r.Acked.shown(),
	}
	if !r.Since.IsZero() {
		out.Since = timeText(r.Since)
	}
	return out
}

func shownCauses(of []PolicyCause) []v2PolicyCause {
	var out []v2PolicyCause
	for _, c := range of {
		out = append(out, v2PolicyCause{c.Service.Namespace, c.Service.Service, c.Version, c.Revision, c.By, timeText(c.At)})
	}
	return out
}

func (c *ProxyContent) shown() *v2ProxyContent {
	if c.Hash == 0 {
		return nil
	}
	return &v2ProxyContent{Revision: c.Revision, Hash: fmt.Sprintf("%016x", c.Hash), Content: c.Content, LeftOutBytes: c.LeftOut}
}

// String is the place as a cursor.
func (p ProxyResourcePlace) String() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d/%d/%s/%s", p.Member, p.Number, p.Type, p.Name))
}

var errNoPlace = errors.New("it is not four parts, the first two of them numbers")

func parseProxyResourcePlace(text string) (ProxyResourcePlace, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	parts := strings.SplitN(string(raw), "/", 4)
	if err != nil || len(parts) < 4 {
		return ProxyResourcePlace{}, errNoPlace
	}
	member, wrong := strconv.ParseUint(parts[0], 10, 64)
	number, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil || wrong != nil {
		return ProxyResourcePlace{}, errNoPlace
	}
	return ProxyResourcePlace{Member: member, Number: number, Type: parts[2], Name: parts[3]}, nil
}

func (p *parameters) proxyResourcePlace() ProxyResourcePlace {
	text := p.first(cursorName)
	if text == "" {
		return ProxyResourcePlace{}
	}
	place, err := parseProxyResourcePlace(text)
	if err != nil {
		p.add(cursorName, fmt.Sprintf("%q is not one that a proxy's list has given: take nextCursor as it is, or leave it out to begin anew", clip(text)))
	}
	return place
}
