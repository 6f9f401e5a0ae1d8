package xds

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// A Cause is an edit of a policy by which a resource became what a client refuses.
type Cause struct {
	Service  registry.ServiceKey
	Version  uint64
	Revision registry.Revision
	By       string
	At       time.Time
}

// causes are the edits of policies that lie between what a client has accepted of
// a resource and what it refuses, the newest first. There is none where it refuses
// what came by an instance.
func (c *cache) causes(s *scope, one *seen) []Cause {
	var out []Cause
	for _, k := range c.behind(s, one) {
		if cause, ok := c.causeOf(k, one.good, one.wanted); ok {
			out = append(out, cause)
		}
	}
	slices.SortFunc(out, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(b.Revision, a.Revision), a.Service.Compare(b.Service))
	})
	return out[:min(len(out), causesMax)]
}

// behind are the services that a resource is made of.
func (c *cache) behind(s *scope, one *seen) []registry.ServiceKey {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var keys []registry.ServiceKey
	name := one.name
	if one.typ == typeListener {
		name = strings.TrimPrefix(name, localPrefix)
	}
	if owner := c.directory.clusters[targetOf(name)]; owner != nil {
		keys = append(keys, owner.listing.key)
	}
	if one.typ == typeRoutes && s != nil && slices.Contains(routeTables[s.kind], one.name) {
		for _, member := range s.members {
			keys = append(keys, member.listing.key)
		}
	}
	slices.SortFunc(keys, registry.ServiceKey.Compare)
	return slices.Compact(keys)
}

// causeOf is the last edit of a service's policy that the refused content has and the good one lacks.
func (c *cache) causeOf(k registry.ServiceKey, good, refused *entry) (Cause, bool) {
	accepted := registry.Revision(0)
	if good != nil {
		accepted = max(good.revision, registry.Revision(good.held.Load()))
	}
	d := c.machine.Policy(k)
	if d == nil {
		return Cause{}, false
	}
	for _, e := range slices.Backward(d.Edits) {
		if e.Revision > refused.revision {
			continue
		}
		if e.Revision <= accepted {
			break
		}
		return Cause{Service: k, Version: e.Version, Revision: e.Revision, By: e.By, At: time.UnixMilli(e.At)}, true
	}
	return Cause{}, false
}
