package e2e

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
)

// observer is a client that watches: for a while at a member, and then it goes on at
// another one, mostly from where it was, sometimes from an earlier point or anew. It
// keeps what it was told for the judge.
type observer struct {
	name      string
	way       way
	sieve     sieve
	length    time.Duration // of a session, about
	random    *rand.Rand
	first     bookmark
	bookmarks []bookmark // some of them; the last is where it is
	known     uint64
	sessions  []*session
}

// bookmark is a resume point, as it was told.
type bookmark struct {
	token    string
	revision uint64
}

// way is one of the three: it follows a watch, from a bookmark on, and shows what is told
// until that is enough, the member ends it or the context does.
type way interface {
	follow(ctx context.Context, m *member, s sieve, from bookmark, take func(tidings, string) (more bool)) error
}

const (
	observerRest   = 20 * time.Millisecond // after a session that did not come about
	bookmarksKept  = 32
	beginsAnew     = 25 // one in so many
	fromABookmark  = 8
	pollWait       = 100 * time.Millisecond
	sessionTimeMin = 10 * time.Millisecond
)

// observe goes on until the context is over, and counts how often it has gone on with a watch.
func (o *observer) observe(ctx context.Context, members []*member, reconnects *atomic.Int64) {
	for ctx.Err() == nil {
		within, cancel := context.WithTimeout(ctx, sessionTimeMin+time.Duration(o.random.ExpFloat64()*float64(o.length)))
		from := o.from()
		switch came := o.session(within, members[o.random.IntN(len(members))], from, func(uint64) bool { return true }); {
		case !came:
			rest(ctx, observerRest)
		case from.revision != 0:
			reconnects.Add(1)
		}
		cancel()
	}
}

// catchUp goes on until everything up to a revision has been told, from the very first
// bookmark on: what came after it is kept by nobody any more.
func (o *observer) catchUp(ctx context.Context, members []*member, to uint64) {
	for from := o.first; ctx.Err() == nil && from.revision < to; from = o.last() {
		o.session(ctx, members[o.random.IntN(len(members))], from, func(resume uint64) bool { return resume < to })
	}
}

// last is where it is.
func (o *observer) last() bookmark {
	if len(o.bookmarks) == 0 {
		return bookmark{}
	}
	return o.bookmarks[len(o.bookmarks)-1]
}

func (o *observer) from() bookmark {
	switch {
	case o.random.IntN(beginsAnew) == 0:
		return bookmark{}
	case o.random.IntN(fromABookmark) == 0 && len(o.bookmarks) > 0:
		return o.bookmarks[o.random.IntN(len(o.bookmarks))]
	}
	return o.last()
}

// session is one at a member; false: it has not come about.
func (o *observer) session(ctx context.Context, m *member, from bookmark, more func(resume uint64) bool) (came bool) {
	s := &session{who: fmt.Sprintf("%s, session %d, at %s", o.name, len(o.sessions), m.name()), sieve: o.sieve, from: from.revision, known: o.known}
	err := o.way.follow(ctx, m, o.sieve, from, func(t tidings, token string) bool {
		s.told = append(s.told, t)
		o.known = max(o.known, t.upTo)
		for _, c := range t.changes {
			o.known = max(o.known, c.revision)
		}
		if t.resume != 0 {
			o.keep(bookmark{token, t.resume})
		}
		return more(t.resume)
	})
	came = err == nil || len(s.told) > 0
	if came {
		o.sessions = append(o.sessions, s)
	}
	return came
}

// keep has the newest at the end, and some of those before.
func (o *observer) keep(b bookmark) {
	if o.first.revision == 0 {
		o.first = b
	}
	if len(o.bookmarks) < bookmarksKept {
		o.bookmarks = append(o.bookmarks, b)
		return
	}
	at := o.random.IntN(bookmarksKept - 1)
	o.bookmarks[at] = o.bookmarks[bookmarksKept-1]
	o.bookmarks[bookmarksKept-1] = b
}

const seenNamespace = "seen"

func (s sieve) query() url.Values {
	q := url.Values{"namespace": {seenNamespace}}
	for name, value := range map[string]string{"service": s.service, "zone": s.zone} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if s.color != "" {
		q.Set("label", "color="+s.color)
	}
	return q
}

// seenInstance is an instance as v2 has it.
type seenInstance struct {
	InstanceID, Service, Zone string
	Labels, Metadata          map[string]string
}

func (i *seenInstance) thing() thing {
	return thing{service: i.Service, zone: i.Zone, color: i.Labels["color"], value: i.Metadata["value"]}
}

// seenData is what frames and polls of v2 have.
type seenData struct {
	Revision                         uint64
	Resume, Type, Reason, InstanceID string
	Created                          bool
	Instance                         *seenInstance
	Instances                        []seenInstance
	Changes                          []seenData
}

func (d *seenData) change() tiding {
	t := tiding{revision: d.Revision, id: d.InstanceID, created: d.Created, gone: d.Type == "delete"}
	if d.Instance != nil {
		t.thing = d.Instance.thing()
	}
	return t
}

func (d *seenData) things() map[string]thing {
	things := make(map[string]thing)
	for i := range d.Instances {
		things[d.Instances[i].InstanceID] = d.Instances[i].thing()
	}
	return things
}

// revisionOf is that of an id.
func revisionOf(id string) (uint64, error) {
	_, number, _ := strings.Cut(id, ":")
	return strconv.ParseUint(number, 10, 64)
}

// events is the way by server-sent events.
type events struct{ client *http.Client }

func (e events) follow(ctx context.Context, m *member, s sieve, from bookmark, take func(tidings, string) bool) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url()+"/api/v2/watch?"+s.query().Encode(), nil)
	if err != nil {
		return err
	}
	if from.token != "" {
		request.Header.Set("Last-Event-ID", from.token)
	}
	response, err := e.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %d", response.StatusCode)
	}
	for lines := bufio.NewReader(response.Body); ; {
		event, id, data, err := eventOf(lines)
		if err != nil {
			return nil // the stream is over
		}
		var d seenData
		if err := json.Unmarshal(data, &d); err != nil {
			return fmt.Errorf("%s: %w", data, err)
		}
		at, err := revisionOf(id)
		if err != nil {
			return err
		}
		t := tidings{resume: at}
		switch event {
		case "snapshot":
			t.whole, t.reason, t.things, t.upTo = true, d.Reason, d.things(), d.Revision
		case "progress":
			t.upTo = d.Revision
		default:
			t.changes = []tiding{d.change()}
		}
		if !take(t, id) {
			return nil
		}
	}
}

// eventOf reads one event, whole.
func eventOf(lines *bufio.Reader) (event, id string, data []byte, err error) {
	for {
		line, err := lines.ReadString('\n')
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch {
		case err != nil:
			return "", "", nil, err
		case line == "\n":
			return event, id, data, nil
		case name == "event":
			event = value
		case name == "id":
			id = value
		case name == "data":
			data = []byte(value)
		}
	}
}

// polls is the way by one call after the other.
type polls struct{ client *http.Client }

func (p polls) follow(ctx context.Context, m *member, s sieve, from bookmark, take func(tidings, string) bool) error {
	for token := from.token; ; {
		q := s.query()
		q.Set("wait", pollWait.String())
		if token != "" {
			q.Set("revision", token)
		}
		d, err := p.poll(ctx, m.url()+"/api/v2/watch?"+q.Encode())
		if err != nil {
			return err
		}
		t := tidings{upTo: d.Revision}
		if t.resume, err = revisionOf(d.Resume); err != nil {
			return err
		}
		if d.Type == "snapshot" {
			t.whole, t.reason, t.things = true, d.Reason, d.things()
		}
		for i := range d.Changes {
			t.changes = append(t.changes, d.Changes[i].change())
		}
		if token = d.Resume; !take(t, token) || ctx.Err() != nil {
			return nil
		}
	}
}

func (p polls) poll(ctx context.Context, target string) (d seenData, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return d, err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return d, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("answered %d", response.StatusCode)
	}
	if err == nil {
		err = json.Unmarshal(body, &d)
	}
	return d, err
}

// calls is the way over gRPC.
type calls struct {
	of map[*member]stellmapv1.RegistryServiceClient
}

func newCalls(t *testing.T, members []*member) calls {
	c := calls{of: make(map[*member]stellmapv1.RegistryServiceClient)}
	soon := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: observerRest, Multiplier: 1.5, MaxDelay: 10 * observerRest}, MinConnectTimeout: time.Second}
	for _, m := range members {
		conn, err := grpc.NewClient("passthrough:///"+m.address(1), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(soon))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		c.of[m] = stellmapv1.NewRegistryServiceClient(conn)
	}
	return c
}

func (c calls) follow(ctx context.Context, m *member, s sieve, from bookmark, take func(tidings, string) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	filter := &stellmapv1.Filter{Namespace: seenNamespace}
	if s.service != "" {
		filter.Services = []string{s.service}
	}
	if s.zone != "" {
		filter.Zones = []string{s.zone}
	}
	if s.color != "" {
		filter.Labels = []string{"color=" + s.color}
	}
	stream, err := c.of[m].Watch(ctx, &stellmapv1.WatchRequest{Filter: filter, Resume: from.token})
	if err != nil {
		return err
	}
	var whole *tidings // all there is, in parts
	for told := 0; ; told++ {
		r, err := stream.Recv()
		if err != nil && told > 0 {
			return nil
		} else if err != nil {
			return err
		}
		t := tidings{}
		if r.GetResume() != "" {
			if t.resume, err = resumeOf(r.GetResume()); err != nil {
				return err
			}
			t.upTo = r.GetRevision()
		}
		for _, c := range r.GetChanges() {
			t.changes = append(t.changes, tiding{
				revision: c.GetRevision(), id: c.GetInstance().GetInstanceId(), thing: thingOf(c.GetInstance()),
				created: c.GetKind() == stellmapv1.ChangeKind_CHANGE_KIND_CREATED, gone: c.GetKind() == stellmapv1.ChangeKind_CHANGE_KIND_GONE,
			})
		}
		if r.GetResync() != 0 {
			if whole == nil {
				whole = &tidings{whole: true, things: make(map[string]thing), reason: strings.ToLower(strings.TrimPrefix(r.GetResync().String(), "RESYNC_"))}
			}
			for _, i := range r.GetInstances() {
				whole.things[i.GetInstanceId()] = thingOf(i)
			}
			if r.GetPartial() {
				continue
			}
			whole.upTo, whole.resume = t.upTo, t.resume
			t, whole = *whole, nil
		}
		if !take(t, r.GetResume()) {
			return nil
		}
	}
}

func thingOf(i *stellmapv1.Instance) thing {
	return thing{service: i.GetService(), zone: i.GetZone(), color: pairOf(i.GetLabels(), "color"), value: pairOf(i.GetMetadata(), "value")}
}

func pairOf(all []*stellmapv1.Pair, key string) string {
	for _, p := range all {
		if p.GetKey() == key {
			return p.GetValue()
		}
	}
	return ""
}

func resumeOf(token string) (uint64, error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return 0, err
	}
	_, number, _ := strings.Cut(string(raw), "/")
	return strconv.ParseUint(number, 10, 64)
}
