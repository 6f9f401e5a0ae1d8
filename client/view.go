package client

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
)

// view is what is known of a service, made of what its watch tells. It knows no clock
// and no network.
//
// It changes by whole revisions only: what is told in parts is kept aside until the last
// of them. So all that there is, told anew, takes the place of what was known at once,
// and nothing vanishes for a moment.
//
// A cluster that was restored from a backup is another: it does not know of those who have
// registered since, until they find out and register again, within a third of their TTL.
// So what such a one lacks is held for a while.
type view struct {
	most      int                  // instances; 0 = instancesMax
	instances map[string]*Instance // by id
	revision  uint64
	resume    string               // from where the watch goes on; "" = the beginning
	held      map[string]*Instance // what another cluster than before has not told of

	parts   map[string]*Instance // all there is, as far as it was told
	pending []*stellmapv1.Change
}

// interrupt is the end of a stream: of what was told in part, all is told again.
func (v *view) interrupt() { v.parts, v.pending = nil, nil }

// take takes a response of the watch. It tells whether what is known is whole, and
// whether it is another than before.
func (v *view) take(m *stellmapv1.WatchResponse) (whole, changed bool, err error) {
	if m.GetResync() != stellmapv1.Resync_RESYNC_UNSPECIFIED {
		if v.parts == nil {
			v.parts = make(map[string]*Instance)
		}
		for _, i := range m.GetInstances() {
			v.parts[i.GetInstanceId()] = instanceOf(i)
		}
	}
	v.pending = append(v.pending, m.GetChanges()...)
	if most := cmp.Or(v.most, instancesMax); max(len(v.parts), len(v.pending)) > most {
		v.interrupt()
		return false, false, fmt.Errorf("client: it has more than %d instances, which is all that is kept of one service: ask for a part of them, by Group, Version or Selector", most)
	}
	if m.GetPartial() {
		return false, false, nil
	}
	changed = v.parts != nil || len(v.pending) > 0
	if v.parts != nil {
		v.hold(m.GetResync())
		v.instances = v.parts
	}
	for _, c := range v.pending {
		v.change(c)
	}
	v.interrupt()
	v.revision, v.resume = m.GetRevision(), m.GetResume()
	return true, changed, nil
}

// hold keeps what was known and is not told by another cluster; what the same does not tell
// of any more is gone.
func (v *view) hold(why stellmapv1.Resync) {
	if why != stellmapv1.Resync_RESYNC_UNKNOWN_REVISION {
		v.held = nil
		return
	}
	before := v.list()
	v.held = make(map[string]*Instance)
	for _, i := range before {
		if v.parts[i.ID] == nil {
			v.held[i.ID] = i
		}
	}
}

// release ends the holding. It tells whether there was any.
func (v *view) release() bool {
	some := len(v.held) > 0
	v.held = nil
	return some
}

func (v *view) change(c *stellmapv1.Change) {
	delete(v.held, c.GetInstance().GetInstanceId())
	if v.instances == nil {
		v.instances = make(map[string]*Instance)
	}
	if c.GetKind() == stellmapv1.ChangeKind_CHANGE_KIND_GONE {
		delete(v.instances, c.GetInstance().GetInstanceId())
		return
	}
	v.instances[c.GetInstance().GetInstanceId()] = instanceOf(c.GetInstance())
}

// list is all instances by id.
func (v *view) list() []*Instance {
	all := make([]*Instance, 0, len(v.instances)+len(v.held))
	for _, known := range []map[string]*Instance{v.instances, v.held} {
		for _, i := range known {
			all = append(all, i)
		}
	}
	slices.SortFunc(all, func(a, b *Instance) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Change is what has become of an instance between two snapshots.
type Change struct {
	Before, After *Instance // nil = it was not there, or is not any more
}

// Changes are what has changed from one snapshot of a service to a later one, by id.
func Changes(before, after Snapshot) []Change {
	var out []Change
	for a, b := before.Instances, after.Instances; len(a)+len(b) > 0; {
		order := -1 // which of the two firsts comes first
		switch {
		case len(a) == 0:
			order = 1
		case len(b) > 0:
			order = strings.Compare(a[0].ID, b[0].ID)
		}
		var c Change
		if order <= 0 {
			c.Before, a = a[0], a[1:]
		}
		if order >= 0 {
			c.After, b = b[0], b[1:]
		}
		if order != 0 || c.Before.Revision != c.After.Revision || c.Before.Protected != c.After.Protected {
			out = append(out, c)
		}
	}
	return out
}
