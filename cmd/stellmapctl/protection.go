package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// A protection is that nothing expires somewhere for a while.
type protection struct {
	Scope           string `json:"scope"` // cluster, service or zone
	Namespace       string `json:"namespace,omitempty"`
	Service         string `json:"service,omitempty"`
	Zone            string `json:"zone,omitempty"`
	Since           string `json:"since"`
	Reason          string `json:"reason"`
	Suspects        int    `json:"suspects"`
	Leases          int    `json:"leases"`
	EndsAtSuspects  int    `json:"endsAtSuspects"`
	EndsAtTheLatest string `json:"endsAtTheLatest"`
}

// protections are what there is at the moment, as the asked member has it: of use
// also when it has no leader.
func (c *ctl) protections(ctx context.Context, doing string) ([]protection, error) {
	var list struct {
		Protections []protection `json:"protections"`
	}
	err := c.call(ctx, request{doing: doing, method: http.MethodGet, path: "/api/v2/protections?consistency=stale"}, &list)
	return list.Protections, err
}

// protectionLines tell what is protected, since when, why, and what ends it.
func (c *ctl) protectionLines(of []protection) []string {
	var out []string
	for _, p := range of {
		out = append(out, fmt.Sprintf("%s: nothing expires since %s ago, as %s; %d of %d are suspect; it ends when %d are, or in %s",
			p.where(), c.ageOf(p.Since), p.Reason, p.Suspects, p.Leases, p.EndsAtSuspects, c.timeTo(p.EndsAtTheLatest)))
	}
	return out
}

func (p *protection) where() string {
	switch p.Scope {
	case "zone":
		return fmt.Sprintf("zone %s of %s/%s", p.Zone, p.Namespace, p.Service)
	case "service":
		return p.Namespace + "/" + p.Service
	}
	return "the " + p.Scope
}

// timeTo is how long it is to a time as the server wrote it.
func (c *ctl) timeTo(at string) string {
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return at
	}
	return age(t.Sub(c.now()))
}
