package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

// load is what proxies report of the calls to a service.
type load struct {
	WindowSeconds int           `json:"windowSeconds"`
	Clusters      []clusterLoad `json:"clusters"`
	Members       []memberLoad  `json:"members"`
}

type callCounts struct {
	Succeeded  uint64 `json:"succeeded"`
	Failed     uint64 `json:"failed"`
	InProgress uint64 `json:"inProgress"`
}

type clusterLoad struct {
	Cluster string `json:"cluster"`
	callCounts
	Dropped    uint64         `json:"dropped"`
	Localities []localityLoad `json:"localities"`
	Drops      []dropLoad     `json:"drops,omitempty"`
}

type localityLoad struct {
	Region string `json:"region"`
	Zone   string `json:"zone,omitempty"`
	callCounts
}

type dropLoad struct {
	Category string `json:"category"`
	Dropped  uint64 `json:"dropped"`
}

type memberLoad struct {
	ID        uint64 `json:"id"`
	Reporters int    `json:"reporters"`
	Error     string `json:"error,omitempty"`
}

// loaded is what proxies report of a service. That it cannot be told is said, and is
// no reason to tell nothing.
func (c *ctl) loaded(ctx context.Context, l *looking) (*load, error) {
	path := namespacePath(l.ref.namespace) + "/services/" + url.PathEscape(l.ref.service) + "/load"
	if l.stale {
		path += "?consistency=stale"
	}
	var out load
	if err := c.call(ctx, request{doing: "look what proxies report of " + l.ref.namespace + "/" + l.ref.service, method: http.MethodGet, path: path}, &out); err != nil {
		return nil, printLine(c.stderr, "what proxies report of its load is not known: %v", err)
	}
	return &out, nil
}

// loadParts are the calls to a service by zone, and those that were dropped; nothing
// where nobody reports any.
func (l *load) loadParts() []view {
	if l == nil || len(l.Clusters) == 0 {
		return nil
	}
	reporters, silent := 0, ""
	for _, m := range l.Members {
		reporters += m.Reporters
		if m.Error != "" {
			silent += fmt.Sprintf("; member %d does not say: %s", m.ID, m.Error)
		}
	}
	calls := view{
		head:    fmt.Sprintf("calls within %ds, by %s that report%s", l.WindowSeconds, quantity(reporters, "client", "clients"), silent),
		columns: []column{{"CLUSTER", false}, {"REGION", false}, {"ZONE", false}, {"SUCCEEDED", false}, {"FAILED", false}, {"IN PROGRESS", false}},
	}
	parts := []view{calls}
	for _, c := range l.Clusters {
		for _, at := range c.Localities {
			parts[0].rows = append(parts[0].rows, []string{c.Cluster, at.Region, at.Zone, fmt.Sprint(at.Succeeded), fmt.Sprint(at.Failed), fmt.Sprint(at.InProgress)})
		}
		for _, d := range c.Drops {
			parts = append(parts, view{line: fmt.Sprintf("%s to %s not made: %s", quantity(int(d.Dropped), "call", "calls"), c.Cluster, d.Category)})
		}
	}
	return parts
}
