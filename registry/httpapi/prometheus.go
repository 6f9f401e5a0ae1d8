package httpapi

import (
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// The targets of Prometheus, in the form that its HTTP service discovery asks for:
// the whole list each time, since it does not know of cursors.

// metricsEndpoint is the endpoint that is scraped where no other is asked for.
const metricsEndpoint = "metrics"

// metaLabel begins the labels that a configuration may relabel, and that are dropped after that.
const metaLabel = "__meta_stellmap_"

var prometheusQuery = slices.Concat([]string{"namespace", "service*"}, freshQuery, filters)

func (a *API) v2PrometheusTargets(w http.ResponseWriter, q *http.Request) error {
	p := parametersOf(q)
	p.only(prometheusQuery...)
	fresh := p.freshness(a)
	namespace := p.first("namespace")
	if _, given := p.values["namespace"]; given && strings.TrimSpace(namespace) == "" {
		p.add("namespace", "is empty: leave it out for all of them")
	}
	query := p.filter(namespace, p.all("service"), fresh)
	if len(query.Regions) == 0 { // the others are scraped where they run
		query.Regions = []string{a.registry.OwnRegion()}
	}
	if len(query.Endpoints) == 0 {
		query.Endpoints = []string{metricsEndpoint}
	}
	p.join(query.Check())
	if err := p.err(); err != nil {
		return err
	}
	instances, at, err := a.registry.List(q.Context(), query)
	if err != nil {
		return err
	}
	setRevision(w, at)
	fresh.tell(w)
	// Without a status that is asked for these are all that may live: how somebody
	// works who gets no calls is worth knowing, too.
	whoever := len(p.all("status")) > 0
	writeList(w, "[", "]", instances, func(e *encoder, i *registry.Instance) {
		if whoever || i.ExpiredAt == 0 {
			e.targets(i)
		}
	})
	return nil
}

// targets are the endpoints of an instance, each with its labels.
func (e *encoder) targets(i *registry.Instance) {
	for n := range i.Endpoints {
		one := &i.Endpoints[n]
		e.open('{')
		e.key("targets")
		e.open('[')
		e.b = appendText(e.b, net.JoinHostPort(one.Host, strconv.Itoa(int(one.Port))))
		e.close(']')
		e.key("labels")
		e.open('{')
		e.targetLabels(i, one)
		e.close('}')
		e.close('}')
	}
}

func (e *encoder) targetLabels(i *registry.Instance, one *registry.Endpoint) {
	if one.Protocol == "http" || one.Protocol == "https" {
		e.text("__scheme__", one.Protocol)
	}
	if one.Name == metricsEndpoint {
		e.optional("__metrics_path__", one.Path)
	}
	levels := i.Levels()
	for _, l := range []registry.Pair{
		{Key: "namespace", Value: i.Namespace}, {Key: "service", Value: i.Service}, {Key: "instance_id", Value: i.ID},
		{Key: "group", Value: i.Group}, {Key: "zone", Value: i.Zone}, {Key: "region", Value: i.Region}, {Key: "version", Value: i.Version},
		{Key: "status", Value: i.Status.String()},
		{Key: "organization", Value: levels.Organization}, {Key: "business_domain", Value: levels.BusinessDomain},
		{Key: "capability_domain", Value: levels.CapabilityDomain}, {Key: "application", Value: levels.Application}, {Key: "role", Value: levels.Role},
		{Key: "endpoint", Value: one.Name}, {Key: "endpoint_protocol", Value: one.Protocol}, {Key: "endpoint_path", Value: one.Path},
	} {
		e.optional(metaLabel+l.Key, l.Value)
	}
	e.metaPairs("label_", i.Labels)
	e.metaPairs("metadata_", i.Metadata)
}

// metaPairs are labels or metadata by names that Prometheus takes. Of two keys that
// come to one name the first counts: a name that stood twice would cost the whole list.
func (e *encoder) metaPairs(kind string, pairs registry.Pairs) {
	var names []string
	for _, p := range pairs {
		name := metaLabel + kind + labelName(p.Key)
		if slices.Contains(names, name) {
			continue
		}
		names = append(names, name)
		e.text(name, p.Value)
	}
}

// labelName has an underscore for every character that a label's name may not have.
func labelName(key string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, key)
}
