package xds

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/stellmap/stellmap/registry"
)

// What a client has of each resource its stream alone knows. Who wants to see it
// leaves a look with the stream, which shows it after its next turn: the entries
// behind each name, that are there anyway. What is made of them is made outside,
// and a stream that nobody looks at does nothing.

// The bounds of looks; they count as inquiries, too.
const (
	ProxyResourcesMax = 500                 // in one page
	nodeStreamsMax    = 16                  // streams of one node that are looked at, the first of them
	contentBytesMax   = 7 << 20             // of all contents in one page: a message between members has room for 8 MiB
	contentMax        = contentBytesMax / 2 // of one content; of a larger one the size is told
	causesMax         = 5                   // edits of policies that are named for one resource
)

// The words for where a client is with a resource, beside those of PendingState.
const (
	ResourceSynced PendingState = "synced" // it has accepted what holds now
	ResourceAbsent PendingState = "absent" // there is no such thing, and it has nothing
)

// ResourceStates are all of them.
var ResourceStates = []string{
	string(ResourceSynced), string(ResourceAbsent), string(PendingWaiting), string(PendingSent), string(PendingSilent), string(PendingRejected),
}

// TypeNames are the words for the types.
var TypeNames = typeNames[:]

// A DetailQuery says of which node what is to be shown. Of what is empty, any will do.
type DetailQuery struct {
	Node                 string
	Types, Names, States []string
	Contents             bool
	Upstreams            []string            // of which it is to be said whether the proxies have them
	Service              registry.ServiceKey // of which it is to be said why the proxies may not have it; empty = of none

	AfterNumber          uint64 // with the others, of a ResourceStatus: the list goes on behind it; 0 = from the beginning
	AfterType, AfterName string
	Limit                int
}

// ProxyDetail is a page of what the proxies of one node have.
type ProxyDetail struct {
	Proxies   []ProxyStatus    // the node's streams on this member, in the order of their coming
	Stuck     []uint64         // those of them that did not show what they have, since they are stuck in sending
	Resources []ResourceStatus // by proxy, type and name
	Count     int              // of those that match, on all pages
	More      bool
}

// A ResourceStatus is what a client has under a name.
type ResourceStatus struct {
	Number              uint64 // of the proxy
	Type, Name          string
	State               PendingState
	Since               time.Time // when the state began; zero for those that are in order
	Reason              string    // in the client's words, where it has refused it
	Causes              []Cause   // of a refusal
	Wanted, Sent, Acked Content   // what holds now, was sent last, and was accepted last
}

// Content is what a resource is at a revision.
type Content struct {
	Hash     uint64 // 0 = there is none
	Revision registry.Revision
	Bytes    []byte // the message, where it was asked for; nil where only the client's word for it is known
	LeftOut  int    // the size of a message that had no room
}

// A look is one who wants to see what a stream's client has.
type look struct {
	query DetailQuery
	shown chan sight // holds the one that comes
}

// A sight is what a stream shows.
type sight struct {
	gone      bool   // it is no more
	scope     *scope // that it has now: an edit may give it another
	denied    string // why its client may not be told of the query's service
	resources []seen
}

// seen is what stands behind a name.
type seen struct {
	typ                resourceType
	state              PendingState
	since              time.Time
	reason             string
	name               string
	wanted, sent, good *entry
}

// show is all that a look asks for, in order.
func (s *stream) show(l *look) sight {
	out := sight{scope: s.scope}
	if l.query.Service != (registry.ServiceKey{}) {
		out.denied = s.party.denied(l.query.Service)
	}
	for _, b := range s.subs {
		if b == nil || !anyOf(l.query.Types, b.typ.String()) {
			continue
		}
		for _, name := range b.mentioned() {
			if !anyOf(l.query.Names, name) {
				continue
			}
			if one := b.see(name); anyOf(l.query.States, string(one.state)) {
				out.resources = append(out.resources, one)
			}
		}
	}
	return out
}

func anyOf(wanted []string, has string) bool { return len(wanted) == 0 || slices.Contains(wanted, has) }

// mentioned are the names that the client wants or may have, in order.
func (b *subscription) mentioned() []string {
	names := b.all()
	for name := range b.known {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (b *subscription) see(name string) seen {
	out := seen{typ: b.typ, name: name, wanted: b.wanted(name), good: b.good(name)}
	if k := b.known[name]; k != nil {
		out.sent = k.sent
	}
	settled := out.sent.hashOf() == out.good.hashOf() && out.good.hashOf() == out.wanted.hashOf() && !b.pending.mentions(name)
	switch {
	case settled && out.wanted.absent():
		out.state = ResourceAbsent
	case settled:
		out.state = ResourceSynced
	default:
		out.state, out.since, out.reason = b.lacks(name)
	}
	return out
}

// look has a stream show what it has; false if it does not within ctx.
func (s *stream) look(ctx context.Context, q DetailQuery) (sight, bool) {
	l := &look{query: q, shown: make(chan sight, 1)}
	s.mu.Lock()
	gone := s.gone
	if !gone {
		s.looks = append(s.looks, l)
	}
	s.mu.Unlock()
	if gone {
		return sight{gone: true}, true
	}
	s.wakeUp()
	select {
	case one := <-l.shown:
		return one, true
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.looks = slices.DeleteFunc(s.looks, func(o *look) bool { return o == l })
		return sight{}, false
	}
}

// Detail is a page of what the proxies of a node have on this member.
func (s *Server) Detail(ctx context.Context, q DetailQuery) (ProxyDetail, error) {
	if err := s.inquire(); err != nil {
		return ProxyDetail{}, err
	}
	defer s.metrics.inquiries.Add(-1)
	hearing, cancel := context.WithTimeout(ctx, hearMax)
	defer cancel()
	var out ProxyDetail
	room := contentBytesMax
	for _, str := range s.streamsOf(q.Node) {
		one, ok := str.look(hearing, q)
		if one.gone {
			continue
		}
		p := *str.status.Load()
		p.UpstreamsFound, p.Denied = one.scope.has(q.Upstreams), one.denied
		out.Proxies = append(out.Proxies, p)
		if !ok {
			out.Stuck = append(out.Stuck, str.number)
			continue
		}
		out.Count += len(one.resources)
		for i := range one.resources {
			if q.behind(str.number, &one.resources[i]) {
				s.tell(&out, str.number, one.scope, &one.resources[i], q, &room)
			}
		}
	}
	return out, ctx.Err()
}

// streamsOf are the streams of a node, in the order of their coming.
func (s *Server) streamsOf(node string) []*stream {
	out := s.streamsWhere(func(p *ProxyStatus) bool { return p.Node == node })
	return out[:min(len(out), nodeStreamsMax)]
}

// streamsWhere are those that match, in the order of their coming.
func (s *Server) streamsWhere(matches func(*ProxyStatus) bool) []*stream {
	var out []*stream
	s.mu.Lock()
	for str := range s.streams {
		if p := str.status.Load(); p != nil && matches(p) {
			out = append(out, str)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(out, func(a, b *stream) int { return cmp.Compare(a.number, b.number) })
	return out
}

// behind says that a resource comes after the one that the query goes on from.
func (q *DetailQuery) behind(number uint64, one *seen) bool {
	after := slices.Index(TypeNames, q.AfterType)
	return q.AfterNumber == 0 || cmp.Or(cmp.Compare(number, q.AfterNumber), cmp.Compare(int(one.typ), after), cmp.Compare(one.name, q.AfterName)) > 0
}

// tell adds a resource to a page that has room for it.
func (s *Server) tell(d *ProxyDetail, number uint64, in *scope, one *seen, q DetailQuery, room *int) {
	if d.More || len(d.Resources) >= q.Limit {
		d.More = true
		return
	}
	r := ResourceStatus{
		Number: number, Type: one.typ.String(), Name: one.name, State: one.state, Since: one.since, Reason: one.reason,
		Wanted: contentIn(one.wanted), Sent: contentIn(one.sent), Acked: contentIn(one.good),
	}
	if q.Contents {
		r.Acked.fill(one.good, one.wanted)
		if r.Wanted.Hash != r.Acked.Hash {
			r.Wanted.fill(one.wanted, nil)
		}
		*room -= len(r.Acked.Bytes) + len(r.Wanted.Bytes)
		if *room < 0 && len(d.Resources) > 0 {
			d.More = true
			return
		}
	}
	if one.state == PendingRejected {
		r.Causes = s.cache.causes(in, one)
	}
	d.Resources = append(d.Resources, r)
}

func contentIn(e *entry) Content {
	if e.absent() {
		return Content{}
	}
	return Content{Hash: e.hash, Revision: e.revision}
}

// fill adds the message of an entry, or of one that is equal: of what a client has from
// an earlier stream only its word is known.
func (c *Content) fill(e, equal *entry) {
	if !e.absent() && e.resource == nil && equal.hashOf() == e.hash {
		e = equal
	}
	if e.absent() || e.resource == nil {
		return
	}
	message := e.resource.GetResource().GetValue()
	if len(message) > contentMax {
		c.LeftOut = len(message)
		return
	}
	c.Bytes = message
}

// ContentJSON is a content as Envoy's config dump shows it.
func ContentJSON(typ string, message []byte) (json.RawMessage, error) {
	var m proto.Message
	switch typ {
	case typeCluster.String():
		m = new(clusterv3.Cluster)
	case typeEndpoints.String():
		m = new(endpointv3.ClusterLoadAssignment)
	case typeListener.String():
		m = new(listenerv3.Listener)
	case typeRoutes.String():
		m = new(routev3.RouteConfiguration)
	default:
		return nil, fmt.Errorf("there is no type %q", typ)
	}
	if err := proto.Unmarshal(message, m); err != nil {
		return nil, fmt.Errorf("read a resource of type %s: %w", typ, err)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("show a resource of type %s: %w", typ, err)
	}
	var out bytes.Buffer
	err = json.Compact(&out, text) // protojson puts spaces by chance
	return out.Bytes(), err
}
