package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// v1Watch is the watch of the existing SDKs. They take a snapshot in place of what
// they know of a service, but keep services that it does not have: so all there is
// comes at the beginning only, and a stream that has fallen behind ends. Like
// v1Instances it does not look at other parameters.
func (a *API) v1Watch(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	query := p.v1Query(a.registry.OwnRegion())
	since, snapshot := p.sinceRevision(), p.includeSnapshot()
	if err := p.err(); err != nil {
		return err
	}
	form := &v1Events{api: a, namespace: strings.TrimSpace(query.Namespace), service: onlyService(query.Services)}
	start := registry.WatchStart{After: since, Live: !snapshot, NoResync: !snapshot}
	return a.serveWatch(w, q, watching{query: query, start: start, form: form})
}

// v1Query is of what is registered here: the SDKs know no regions, and would spread
// their calls over all of them.
func (p *parameters) v1Query(own string) registry.Query {
	return registry.Query{
		Regions:   []string{own},
		Namespace: p.first("namespace"), Services: p.all("service"), Prefixes: p.all("servicePrefix"), Levels: p.levels(), LevelsInRun: true,
		Zones: p.one("zone"), Endpoints: p.one("endpoint"), Selectors: p.all("selector"), Labels: p.all("label"), Limit: p.limit(),
	}
}

func (p *parameters) sinceRevision() registry.Revision {
	text := strings.TrimSpace(p.first("sinceRevision"))
	if text == "" {
		return 0
	}
	since, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		p.add("sinceRevision", fmt.Sprintf("%q is not a revision: a whole number, as answers and events have it", clip(text)))
	}
	return registry.Revision(since)
}

func (p *parameters) includeSnapshot() bool {
	text := strings.TrimSpace(p.first("includeSnapshot"))
	if text == "" {
		return true
	}
	include, err := strconv.ParseBool(text)
	if err != nil {
		p.add("includeSnapshot", fmt.Sprintf("%q is neither true nor false", clip(text)))
	}
	return include
}

// onlyService is the one service that is asked for, or "". The Java SDK names it twice.
func onlyService(services []string) string {
	one := ""
	for _, s := range services {
		s = strings.TrimSpace(s)
		if s != "" && one != "" && s != one {
			return ""
		}
		if s != "" {
			one = s
		}
	}
	return one
}

// v1Events writes the keys that the Java SDK knows, and no other.
type v1Events struct {
	api                *API
	namespace, service string
}

func (f *v1Events) resyncs() bool { return false }

func (f *v1Events) whole(e *encoder, c *registry.Changes, sent func()) {
	e.event(revisionText(c.Revision), "snapshot")
	e.b = append(e.b, '{')
	e.number("revision", int64(c.Revision))
	e.text("type", "snapshot")
	e.text("namespace", f.namespace)
	e.optional("service", f.service)
	if len(c.Instances) > 0 {
		e.key("instances")
		e.b = append(e.b, '[')
		heard := f.api.heard(c.Instances)
		for _, i := range c.Instances {
			e.v1Instance(i, heard())
			sent()
		}
		e.close(']')
	}
	e.close('}')
	e.eventEnd()
}

func (f *v1Events) idle(e *encoder, _ registry.Revision) { e.b = append(e.b, ": keepalive\n\n"...) }

// denied is a comment: the SDKs know no event of that kind. They come back and are refused.
func (f *v1Events) denied(e *encoder, of *failure, _ string) {
	e.b = append(append(append(e.b, ": "...), of.Code...), "\n\n"...)
}

func (f *v1Events) change(c *registry.Change) ([]byte, bool) {
	if c.Narrowed {
		return f.encode(c), false
	}
	k := frameKey{revision: c.Revision, order: c.Order, surface: surfaceV1, last: c.Last, gone: c.Gone}
	return f.api.frames.of(k, func() []byte { return f.encode(c) }), true
}

// encode writes a change with a revision that is safe to go on from: the SDKs do so
// after any event, be it in the midst of a revision.
func (f *v1Events) encode(c *registry.Change) []byte {
	name, i, at := "upsert", c.Instance, c.SafeRevision()
	if c.Gone {
		name = "delete"
	}
	e := &encoder{b: make([]byte, 0, 1<<10)}
	e.event(revisionText(at), name)
	e.b = append(e.b, '{')
	e.number("revision", int64(at))
	e.text("type", name)
	e.text("namespace", i.Namespace)
	e.text("service", i.Service)
	e.levels(i.Levels())
	e.text("instanceId", i.ID)
	if !c.Gone {
		e.key("instance")
		e.v1Instance(i, f.api.heard([]*registry.Instance{i})())
	}
	e.close('}')
	e.eventEnd()
	return slices.Clip(e.b)
}
