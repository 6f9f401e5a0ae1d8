package httpapi

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// A listField is one key of an item of a list, which a caller may choose.
type listField[T any] struct {
	name  string
	of    any               // a value of the type that describes it
	write func(*encoder, T) // nothing for an item that does not have it
}

// chosen are the fields that a request names, in the order of all; all of them
// when it names none.
func chosen[T any](p *parameters, all []listField[T]) []listField[T] {
	names := p.words(fieldsName)
	for _, name := range names {
		if !slices.ContainsFunc(all, func(f listField[T]) bool { return f.name == name }) {
			p.add(fieldsName, fmt.Sprintf("%q is not known: the fields are %s", clip(name), fieldNames(all)))
		}
	}
	if len(names) == 0 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(f listField[T]) bool { return !slices.Contains(names, f.name) })
}

func fieldNames[T any](all []listField[T]) string {
	names := make([]string, len(all))
	for i, f := range all {
		names[i] = f.name
	}
	return strings.Join(names, ", ")
}

// A shownInstance is an instance with what is shown beside it.
type shownInstance struct {
	*registry.Instance
	heardAt  int64                // Unix ms
	withheld []Withheld           // of its whole service
	given    *registry.Discovered // of a list with failover
}

var instanceFields = []listField[*shownInstance]{
	{"namespace", "", func(e *encoder, i *shownInstance) { e.text("namespace", i.Namespace) }},
	{"service", "", func(e *encoder, i *shownInstance) { e.text("service", i.Service) }},
	{"instanceId", "", func(e *encoder, i *shownInstance) { e.text("instanceId", i.ID) }},
	{"group", "", func(e *encoder, i *shownInstance) { e.optional("group", i.Group) }},
	{"zone", "", func(e *encoder, i *shownInstance) { e.optional("zone", i.Zone) }},
	{"region", "", func(e *encoder, i *shownInstance) { e.text("region", i.Region) }},
	{"origin", shownOrigin{}, func(e *encoder, i *shownInstance) { e.origin(i.Instance) }},
	{"version", "", func(e *encoder, i *shownInstance) { e.optional("version", i.Version) }},
	{"levels", levelsBody{}, func(e *encoder, i *shownInstance) { e.levels(i.Levels()) }},
	{"labels", map[string]string(nil), func(e *encoder, i *shownInstance) { e.pairs("labels", i.Labels) }},
	{"metadata", map[string]string(nil), func(e *encoder, i *shownInstance) { e.pairs("metadata", i.Metadata) }},
	{"endpoints", []endpointBody(nil), func(e *encoder, i *shownInstance) { e.endpoints(i.Endpoints) }},
	{"checks", []checkBody(nil), func(e *encoder, i *shownInstance) { e.checks(i.Checks()) }},
	{"leaseTtlSeconds", int64(0), func(e *encoder, i *shownInstance) { e.number("leaseTtlSeconds", leaseSeconds(i.Instance)) }},
	{"leaseId", "", func(e *encoder, i *shownInstance) { e.optional("leaseId", i.LeaseID) }},
	{"registeredAt", "", func(e *encoder, i *shownInstance) { e.time("registeredAt", i.RegisteredAt) }},
	{"lastHeartbeatAt", "", func(e *encoder, i *shownInstance) { e.time("lastHeartbeatAt", i.heardAt) }},
	{"status", "", func(e *encoder, i *shownInstance) { e.text("status", i.Status.String()) }},
	{"protected", false, func(e *encoder, i *shownInstance) {
		if i.Protected {
			e.truth("protected", true)
		}
	}},
	{"statusSince", "", func(e *encoder, i *shownInstance) { e.time("statusSince", i.StatusSince()) }},
	{"conditions", []shownCondition(nil), func(e *encoder, i *shownInstance) { e.conditions(i.Conditions()) }},
	{"expiredAt", "", func(e *encoder, i *shownInstance) {
		if i.ExpiredAt != 0 {
			e.time("expiredAt", i.ExpiredAt)
		}
	}},
	{"revision", int64(0), func(e *encoder, i *shownInstance) { e.number("revision", int64(i.Revision)) }},
	{"counter", int64(0), func(e *encoder, i *shownInstance) { e.number("counter", int64(i.Counter)) }},
	{"withheld", []shownWithheld(nil), func(e *encoder, i *shownInstance) { e.withheld(i.Instance, i.withheld) }},
}

// heard gives, one after the other, the times at which the instances were last heard of.
func (a *API) heard(instances []*registry.Instance) func() int64 {
	all, n := a.registry.LastHeartbeats(instances), -1
	return func() int64 {
		n++
		return all[n]
	}
}

// instanceEncoder writes the instances, in their order.
func (a *API) instanceEncoder(ctx context.Context, instances []*registry.Instance, fields []listField[*shownInstance]) func(*encoder, *registry.Instance) {
	shown := a.showing(ctx, instances)
	return func(e *encoder, i *registry.Instance) { writeFields(e, shown(i), fields) }
}

// showing gives each instance, in their order, with what proxies are not told of it, which is
// looked up once for each run of instances of one service. It is good until the next.
func (a *API) showing(ctx context.Context, instances []*registry.Instance) func(*registry.Instance) *shownInstance {
	var of registry.ServiceKey
	shown, heard := &shownInstance{}, a.heard(instances)
	return func(i *registry.Instance) *shownInstance {
		if k := i.ServiceKey(); k != of {
			of, shown.withheld = k, a.withheld(ctx, k)
		}
		shown.Instance, shown.heardAt = i, heard()
		return shown
	}
}

func writeFields[T any](e *encoder, item T, fields []listField[T]) {
	e.open('{')
	for i := range fields {
		fields[i].write(e, item)
	}
	e.close('}')
}

// objects is a list of n objects, left out when there are none.
func (e *encoder) objects(name string, n int, one func(int)) {
	if n == 0 {
		return
	}
	e.key(name)
	e.open('[')
	for i := range n {
		e.open('{')
		one(i)
		e.close('}')
	}
	e.close(']')
}

func (e *encoder) conditions(conditions []registry.Condition) {
	e.objects("conditions", len(conditions), func(i int) { e.condition(&conditions[i]) })
}

func (e *encoder) condition(c *registry.Condition) {
	e.text("source", c.Source.String())
	e.optional("name", c.Name)
	e.text("status", c.Status.String())
	e.time("since", c.Since)
	if c.Until != 0 {
		e.time("until", c.Until)
	}
	e.optional("reason", c.Reason)
	e.optional("by", c.By)
	if c.Held != 0 {
		e.time("heldUntil", c.Held)
	}
}

func (e *encoder) checks(checks []registry.Check) {
	e.objects("checks", len(checks), func(i int) {
		c := &checks[i]
		e.text("name", c.Name)
		e.text("kind", c.Kind)
		e.text("endpoint", c.Endpoint)
		e.optional("path", c.Path)
		e.optional("service", c.Service)
		e.optional("send", c.Send)
		e.optional("expect", c.Expect)
		e.optional("serverName", c.ServerName)
		if c.TLSSkipVerify {
			e.flag("tlsSkipVerify")
		}
		e.number("intervalSeconds", c.IntervalSeconds)
		e.number("timeoutSeconds", c.TimeoutSeconds)
		e.number("rise", int64(c.Rise))
		e.number("fall", int64(c.Fall))
		e.text("initial", c.Initial)
	})
}

// overrides are those that wait for instances to come back.
func (e *encoder) overrides(overrides []registry.KeptOverride) {
	e.objects("overrides", len(overrides), func(i int) {
		e.text("instanceId", overrides[i].ID)
		e.condition(&overrides[i].Condition)
	})
}

// statuses are those that there are, with their counts.
func (e *encoder) statuses(counts registry.StatusCounts) {
	e.key("statuses")
	e.open('{')
	for s, n := range counts {
		if n > 0 {
			e.number(registry.Status(s).String(), int64(n))
		}
	}
	e.close('}')
}

// withheld is what concerns the instance, be it for the sake of its service or its endpoint.
func (e *encoder) withheld(i *registry.Instance, withheld []Withheld) {
	begun := false
	for _, one := range withheld {
		if !one.concerns(i) {
			continue
		}
		if !begun {
			e.key("withheld")
			e.open('[')
			begun = true
		}
		e.open('{')
		e.optional("endpoint", one.Endpoint)
		e.text("reason", one.Reason)
		e.close('}')
	}
	if begun {
		e.close(']')
	}
}

func (h *Withheld) concerns(i *registry.Instance) bool {
	if h.Instance != "" {
		return h.Instance == i.ID
	}
	if h.Endpoint == "" {
		return true
	}
	_, has := i.Endpoint(h.Endpoint)
	return has
}

// A shownService is a service with what is shown beside it.
type shownService struct {
	registry.ServiceMatch
	withheld []Withheld
}

var serviceFields = []listField[*shownService]{
	{"namespace", "", func(e *encoder, s *shownService) { e.text("namespace", s.Key.Namespace) }},
	{"service", "", func(e *encoder, s *shownService) { e.text("service", s.Key.Service) }},
	{"instances", int64(0), func(e *encoder, s *shownService) { e.number("instances", int64(len(s.Instances))) }},
	{"passing", int64(0), func(e *encoder, s *shownService) { e.number("passing", int64(s.Statuses[registry.StatusPassing])) }},
	{"statuses", map[string]int64(nil), func(e *encoder, s *shownService) { e.statuses(s.Statuses) }},
	{"protected", shownProtection{}, func(e *encoder, s *shownService) { e.protection(s.Protected) }},
	{"matching", int64(0), func(e *encoder, s *shownService) { e.number("matching", int64(s.Matching)) }},
	{"endpoints", []shownServiceEndpoint(nil), func(e *encoder, s *shownService) { e.serviceEndpoints(s.Endpoints) }},
	{"overrides", []shownOverride(nil), func(e *encoder, s *shownService) { e.overrides(s.Overrides) }},
	{"protections", []shownPause(nil), func(e *encoder, s *shownService) { e.protections(s.ProtectionStates()) }},
	{"createdRevision", int64(0), func(e *encoder, s *shownService) { e.number("createdRevision", int64(s.Created)) }},
	{"revision", int64(0), func(e *encoder, s *shownService) { e.number("revision", int64(s.Revision)) }},
	{"withheld", []shownWithheld(nil), func(e *encoder, s *shownService) { e.serviceWithheld(s.withheld) }},
}

func (a *API) serviceEncoder(ctx context.Context, fields []listField[*shownService]) func(*encoder, registry.ServiceMatch) {
	return func(e *encoder, s registry.ServiceMatch) {
		writeFields(e, &shownService{ServiceMatch: s, withheld: a.withheld(ctx, s.Key)}, fields)
	}
}

// protection is why all instances of a service are handed out, left out when they are not.
func (e *encoder) protection(p *registry.Protection) {
	if p == nil {
		return
	}
	e.key("protected")
	e.open('{')
	e.time("since", p.Since)
	e.number("healthy", int64(p.Healthy))
	e.number("total", int64(p.Total))
	e.key("threshold")
	e.b = strconv.AppendFloat(e.b, p.Threshold, 'g', -1, 64)
	e.text("why", fmt.Sprintf("%d of %d instances are healthy, less than a share of %v: all are handed out until there are enough", p.Healthy, p.Total, p.Threshold))
	e.close('}')
}

func (e *encoder) serviceEndpoints(endpoints []registry.ServiceEndpoint) {
	e.key("endpoints")
	e.open('[')
	for _, one := range endpoints {
		e.open('{')
		e.text("name", one.Name)
		e.text("protocol", one.Protocol)
		e.close('}')
	}
	e.close(']')
}

func (e *encoder) serviceWithheld(withheld []Withheld) {
	e.objects("withheld", len(withheld), func(i int) {
		e.optional("instance", withheld[i].Instance)
		e.optional("endpoint", withheld[i].Endpoint)
		e.text("reason", withheld[i].Reason)
	})
}

func (e *encoder) namespace(n registry.NamespaceCount) {
	e.open('{')
	e.text("namespace", n.Namespace)
	e.number("services", int64(n.Services))
	e.number("instances", int64(n.Instances))
	e.number("passing", int64(n.Passing))
	if d := n.Document.Content(); d != nil {
		e.optional("description", d.Description)
		e.quota(d.Quota, n)
	}
	e.close('}')
}

// quota is what a namespace may hold, beside the instances that count.
func (e *encoder) quota(q *registry.Quota, n registry.NamespaceCount) {
	if q == nil {
		return
	}
	e.number("alive", int64(n.Alive))
	e.key("quota")
	e.open('{')
	if q.Services != nil {
		e.number("services", *q.Services)
	}
	if q.Instances != nil {
		e.number("instances", *q.Instances)
	}
	e.close('}')
}
