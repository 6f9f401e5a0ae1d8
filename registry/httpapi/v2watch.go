package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// The parameters of watches, beside the filters of lists.
const (
	revisionName = "revision"
	waitName     = "wait"
	snapshotName = "snapshot"
	lastEventID  = "Last-Event-ID"
)

var watchQuery = slices.Concat([]string{"namespace", "service*"}, filters, freshQuery, []string{revisionName, waitName, snapshotName})

// The bounds of a long poll. Polls that began together, as after an outage, end at
// different times, each up to a sixteenth later than it asked for.
const (
	watchWaitMax    = 5 * time.Minute
	watchWaitJitter = 16
)

// v2Watch is a stream of events or, with wait, the answer to one poll.
func (a *API) v2Watch(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	p.refuse(failoverName, failoverWatched)
	p.only(watchQuery...)
	query := registry.Query{
		Namespace: p.first("namespace"), AllNamespaces: strings.TrimSpace(p.first("namespace")) == "", Services: p.all("service"),
		Prefixes: p.all("servicePrefix"), Levels: p.levels(), Groups: p.all("group"), Zones: p.all("zone"), Regions: p.all("region"),
		Versions: p.all("version"), Endpoints: p.all("endpoint"), Selectors: p.all("selector"), Labels: p.all("label"), Statuses: p.words("status"),
		Consistency: p.freshness(a).Consistency,
	}
	if query.AllNamespaces {
		query.Namespace = ""
	}
	if len(query.Statuses) == 0 {
		query.Statuses = []string{"any"}
	}
	start := a.watchStart(p, q.Header.Get(lastEventID))
	wait, polls := p.wait(watchWaitMax), len(p.all(waitName)) > 0
	p.join(query.Check())
	of := a.cluster().Incarnation
	if err := cmp.Or(p.err(), registry.KnownCluster(of)); err != nil {
		return err
	}
	o := watching{query: query, start: start, form: &v2Events{api: a, incarnation: of}}
	if polls {
		return a.pollWatch(w, q, o, wait)
	}
	return a.serveWatch(w, q, o)
}

// watchStart is where a watch goes on. A browser that connects again asks for the
// same address, and says in a header how far it has come.
func (a *API) watchStart(p *parameters, lastID string) registry.WatchStart {
	start := registry.WatchStart{Live: p.choice(snapshotName, "true", "false") == "false"}
	name, text := revisionName, strings.TrimSpace(p.first(revisionName))
	if id := strings.TrimSpace(lastID); id != "" {
		name, text = lastEventID, id
	}
	if text == "" {
		return start
	}
	incarnation, number, whose := strings.Cut(text, ":")
	if !whose {
		incarnation, number = a.cluster().Incarnation, text
	}
	at, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		p.add(name, fmt.Sprintf("%q is not a revision, nor the id of an event: take it as an answer has it, or leave it out to begin anew", clip(text)))
	}
	start.After, start.Foreign = registry.Revision(at), incarnation != a.cluster().Incarnation
	return start
}

// pollWatch answers with what has come after the revision, as soon as there is any,
// or with a newer revision and nothing when the time is over.
func (a *API) pollWatch(w http.ResponseWriter, q *http.Request, o watching, wait time.Duration) error {
	ctx, cancel := a.watchContext(q)
	defer cancel()
	control := http.NewResponseController(w)
	if err := ignoreUnsupported(control.SetReadDeadline(time.Time{})); err != nil {
		return err
	}
	watcher, told, err := a.beginWatch(ctx, o)
	if err == nil && told.Revision == 0 {
		told, err = a.pollOnce(ctx, watcher, wait)
	}
	if err != nil {
		return err
	}
	if err := ignoreUnsupported(control.SetWriteDeadline(time.Now().Add(a.limits.watchStall))); err != nil {
		return err
	}
	setRevision(w, told.Revision)
	f := o.form.(*v2Events)
	if told.Resync != 0 {
		writeList(w, f.pollHead(&told, "snapshot", "instances"), "]}", told.Instances, f.instance(told.Instances))
		return nil
	}
	writeList(w, f.pollHead(&told, "changes", "changes"), "]}", told.Changes, func(e *encoder, c registry.Change) { f.data(e, &c) })
	return nil
}

// pollOnce waits a little longer than it is asked to, each time by another bit.
func (a *API) pollOnce(ctx context.Context, w *registry.Watcher, wait time.Duration) (registry.Changes, error) {
	over := time.NewTimer(wait + time.Duration(rand.Float64()*float64(wait)/watchWaitJitter))
	defer over.Stop()
	told, err := w.Next(ctx, over.C)
	if cause := context.Cause(ctx); err != nil && (errors.Is(cause, registry.ErrStopping) || isDenied(cause)) {
		err = cause
	}
	return told, err
}

// v2Events writes events with the fields of instances that lists have, but for what
// this member alone knows.
type v2Events struct {
	api         *API
	incarnation string
}

// watchFields are those of an instance that follow from its events.
var watchFields = slices.DeleteFunc(slices.Clone(instanceFields), func(f listField[*shownInstance]) bool { return f.name == "withheld" })

func (f *v2Events) resyncs() bool { return true }

// id is what a client goes on from, here or at another member.
func (f *v2Events) id(at registry.Revision) string { return f.incarnation + ":" + revisionText(at) }

func (f *v2Events) pollHead(c *registry.Changes, kind, list string) string {
	e := &encoder{b: []byte("{")}
	e.number("revision", int64(c.Revision))
	e.text("resume", f.id(c.Revision))
	e.text("type", kind)
	if c.Resync != 0 {
		e.text("reason", c.Resync.String())
	}
	e.key(list)
	return string(e.b) + "["
}

func (f *v2Events) instance(all []*registry.Instance) func(*encoder, *registry.Instance) {
	shown, heard := &shownInstance{}, f.api.heard(all)
	return func(e *encoder, i *registry.Instance) {
		shown.Instance, shown.heardAt = i, heard()
		writeFields(e, shown, watchFields)
	}
}

func (f *v2Events) whole(e *encoder, c *registry.Changes, sent func()) {
	e.event(f.id(c.Revision), "snapshot")
	e.b = append(e.b, '{')
	e.number("revision", int64(c.Revision))
	e.text("type", "snapshot")
	e.text("reason", c.Resync.String())
	e.key("instances")
	e.b = append(e.b, '[')
	one := f.instance(c.Instances)
	for _, i := range c.Instances {
		one(e, i)
		sent()
	}
	e.close(']')
	e.close('}')
	e.eventEnd()
}

// idle tells how far there was nothing, so that whoever comes back later goes on from there.
func (f *v2Events) idle(e *encoder, at registry.Revision) {
	e.event(f.id(at), "progress")
	e.b = append(e.b, '{')
	e.number("revision", int64(at))
	e.text("type", "progress")
	e.close('}')
	e.eventEnd()
}

// denied is an event without an id: what was told stays true, and so does how far it goes.
func (f *v2Events) denied(e *encoder, of *failure, says string) {
	e.b = append(e.b, "event: error\ndata: {"...)
	e.text("type", "error")
	e.text("code", of.Code)
	e.text("detail", says)
	e.close('}')
	e.eventEnd()
}

func (f *v2Events) change(c *registry.Change) ([]byte, bool) {
	if c.Narrowed {
		return f.encode(c), false
	}
	k := frameKey{revision: c.Revision, order: c.Order, surface: surfaceV2, cluster: f.incarnation, last: c.Last, created: c.Created, gone: c.Gone}
	return f.api.frames.of(k, func() []byte { return f.encode(c) }), true
}

func (f *v2Events) encode(c *registry.Change) []byte {
	e := &encoder{b: make([]byte, 0, 1<<10)}
	e.event(f.id(c.SafeRevision()), changeType(c))
	f.data(e, c)
	e.eventEnd()
	return slices.Clip(e.b)
}

func changeType(c *registry.Change) string {
	if c.Gone {
		return "delete"
	}
	return "upsert"
}

// data is a change as an object.
func (f *v2Events) data(e *encoder, c *registry.Change) {
	i := c.Instance
	if n := len(e.b); n > 0 && e.b[n-1] != ' ' { // in a list, not in a frame
		e.comma()
	}
	e.b = append(e.b, '{')
	e.number("revision", int64(c.Revision))
	e.text("type", changeType(c))
	if c.Created {
		e.truth("created", true)
	}
	e.text("namespace", i.Namespace)
	e.text("service", i.Service)
	e.text("instanceId", i.ID)
	if !c.Gone {
		e.key("instance")
		f.instance([]*registry.Instance{i})(e, i)
	}
	e.close('}')
}
