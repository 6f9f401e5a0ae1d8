package federation

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// A simFault is one kind of what goes wrong. It does nothing, and returns false, where it
// has nothing to happen to.
type simFault struct {
	name   string
	weight int
	do     func(w *world) bool
}

// simFaults are made on purpose, each as often as its weight says.
var simFaults = []simFault{
	{"link cut", 8, func(w *world) bool { return w.cutLink(there, back) }},
	{"link cut on the way back", 6, func(w *world) bool { return w.cutLink(back) }},
	{"link cut on the way there", 6, func(w *world) bool { return w.cutLink(there) }},
	{"link slow", 4, (*world).slowLink},
	{"connections broken", 6, (*world).breakLink},
	{"connections that break by themselves", 5, (*world).frailLink},
	{"leader moves", 10, (*world).moveLeader},
	{"no leader", 4, (*world).loseLeader},
	{"quorum lost", 4, (*world).loseQuorum},
	{"member behind", 6, (*world).leaveBehind},
	{"member restarted", 5, (*world).restartMember},
	{"answers lost and commands late", 6, (*world).loosen},
	{"region rebuilt", 4, func(w *world) bool { return w.rebuild(1) }},
	{"region rebuilt as it once was", 3, func(w *world) bool { return w.rebuildOld() }},
	{"region rebuilt with less", 3, func(w *world) bool { return w.rebuild(0.5) }},
	{"region rebuilt with nothing", 3, func(w *world) bool { return w.rebuild(0) }},
	{"something else is exported", 3, (*world).changeExported},
	{"something else is wanted", 3, (*world).changeWanted},
	{"clock jumps", 5, (*world).jumpClock},
	{"much written at once", 6, (*world).burst},
	{"much removed at once", 4, (*world).removeMuch},
	{"copy paused", 3, operator(registry.RegionPause)},
	{"copy resumed", 4, operator(registry.RegionResume)},
	{"copy to be told anew", 4, operator(registry.RegionResync)},
	{"held sweep confirmed", 3, operator(registry.RegionConfirm)},
	{"copy forgotten", 2, operator(registry.RegionForget)},
}

// bigFaults are those that schedules with many instances have.
var bigFaults = []string{"link cut", "link cut on the way back", "connections broken", "connections that break by themselves", "leader moves", "much written at once", "copy to be told anew"}

// alsoHappens is what comes of them, and has to come.
var alsoHappens = []string{"a command commits late", "an answer is lost", "a connection breaks by itself", "a sweep is held", "a held sweep goes by itself", "full sync: start", "full sync: compacted", "full sync: unknown_revision"}

// faultyAgain is how long there are faults after a time without.
const faultyAgain = 5 * time.Second

// makeFaults has things be written, and go wrong, until a time.
func (w *world) makeFaults(until time.Duration) {
	writeAt, faultAt := w.now()+w.between(0, w.WriteEvery), w.now()+w.between(0, w.FaultEvery)
	for !w.hasFailed() && min(writeAt, faultAt) < until {
		w.pass(min(writeAt, faultAt) - w.now())
		if writeAt <= faultAt {
			w.writeOne(w.anyRegion())
			writeAt = w.now() + w.between(w.WriteEvery/4, w.WriteEvery)
			continue
		}
		if f := w.pick(); f.do(w) {
			w.count(f.name)
			w.tell("fault: %s", f.name)
		}
		faultAt = w.now() + w.between(w.FaultEvery/4, w.FaultEvery)
	}
}

func (w *world) pick() simFault {
	all := simFaults
	if w.Big {
		all = slices.DeleteFunc(slices.Clone(all), func(f simFault) bool { return !slices.Contains(bigFaults, f.name) })
	}
	sum := 0
	for _, f := range all {
		sum += f.weight
	}
	at := w.dice.IntN(sum)
	for _, f := range all {
		if at -= f.weight; at < 0 {
			return f
		}
	}
	panic("federation: the weights do not add up")
}

func (w *world) anyRegion() *simRegion { return w.regions[w.dice.IntN(len(w.regions))] }
func (w *world) anyCopy() *simCopy     { return w.copies[w.dice.IntN(len(w.copies))] }
func (w *world) anyLink() *simLink {
	c := w.anyCopy()
	return c.in.links[c.of.name]
}

func (r *simRegion) anyMember() *simMember {
	all := r.members()
	return all[r.world.dice.IntN(len(all))]
}

// later undoes a fault, unless everything was healed before.
func (w *world) later(lo, hi time.Duration, undo func()) {
	time.AfterFunc(w.between(lo, hi), undo)
}

func (w *world) cutLink(ways ...int) bool {
	l := w.anyLink()
	if _, is := l.isCut(); is {
		return false
	}
	w.tell("the link of %s to %s is cut: ways %v", l.from.name, l.to.name, ways)
	l.set(func() {
		for _, way := range ways {
			l.cut[way] = true
		}
	})
	w.later(100*time.Millisecond, 40*time.Second, func() { l.set(func() { l.cut = [2]bool{} }) })
	return true
}

func (w *world) slowLink() bool {
	l := w.anyLink()
	l.set(func() { l.latency = w.between(10*time.Millisecond, 3*time.Second) })
	w.later(time.Second, 20*time.Second, func() { l.set(func() { l.latency = latencyUsual }) })
	return true
}

func (w *world) breakLink() bool {
	w.anyLink().breakAll()
	return true
}

func (w *world) frailLink() bool {
	l := w.anyLink()
	l.set(func() { l.breaks = 0.8 })
	l.breakAll()
	w.later(time.Second, 20*time.Second, func() { l.set(func() { l.breaks = 0 }) })
	return true
}

func (w *world) moveLeader() bool {
	r := w.anyRegion()
	w.tell("the leader of %s moves", r.name)
	r.cluster().lead(r.anyMember().number, w.between(0, 3*time.Second))
	return true
}

func (w *world) loseLeader() bool {
	c := w.anyRegion().cluster()
	for _, m := range c.members {
		m.leads.Store(false)
	}
	w.later(100*time.Millisecond, 5*time.Second, func() { c.members[0].leads.Store(true); c.set(func() { c.leader = 0 }) })
	return true
}

func (w *world) loseQuorum() bool {
	c := w.anyRegion().cluster()
	c.set(func() { c.stuck = true })
	w.later(100*time.Millisecond, 10*time.Second, func() { c.set(func() { c.stuck = false }) })
	return true
}

// leaveBehind cuts a member off from the others of its region. It serves what it has.
func (w *world) leaveBehind() bool {
	m := w.anyRegion().anyMember()
	c := m.cluster
	if len(c.members) == 1 {
		return false
	}
	c.lead(1-m.number, w.between(0, time.Second))
	c.set(func() { m.behind = true })
	w.later(time.Second, 60*time.Second, func() { c.set(func() { m.behind = false; m.catchUp() }) })
	return true
}

func (w *world) restartMember() bool {
	m := w.anyRegion().anyMember()
	m.stop()
	w.pass(w.between(0, 3*time.Second))
	m.start()
	return true
}

func (w *world) loosen() bool {
	c := w.anyRegion().cluster()
	c.set(func() { c.loose = true })
	w.later(time.Second, 20*time.Second, func() { c.set(func() { c.loose = false }) })
	return true
}

func (w *world) jumpClock() bool {
	if !w.Skewed {
		return false
	}
	w.anyRegion().anyMember().skew.Store(int64(w.newSkew()))
	return true
}

func (w *world) burst() bool {
	r := w.anyRegion()
	for range 1 + w.dice.IntN(60) {
		w.writeOne(r)
		w.pass(apart)
	}
	return true
}

func (w *world) removeMuch() bool {
	r, ops := w.anyRegion(), []simOp(nil)
	for n := range w.Keys {
		if w.chance(0.8) {
			ops = append(ops, simOp{key: r.keyAt(n)})
		}
	}
	m := r.anyMember()
	w.tasks.Go(func() { r.write(m, ops) })
	return true
}

// writeOne has a member of a region write something.
func (w *world) writeOne(r *simRegion) {
	op, m := simOp{key: r.keyAt(w.dice.IntN(w.Keys))}, r.anyMember()
	if w.chance(0.65) {
		op.value = r.newValue()
	}
	ops := []simOp{op}
	if w.chance(0.1) { // several of one revision
		for n := range w.dice.IntN(6) {
			if other := r.keyAt((n * 7) % w.Keys); op.value != "" && other != op.key && !slices.ContainsFunc(ops, func(o simOp) bool { return o.key == other }) {
				ops = append(ops, simOp{other, r.newValue()})
			}
		}
	}
	w.tasks.Go(func() { r.write(m, ops) })
}

// rebuild ends a region's cluster, and founds another one with a share of what it had.
func (w *world) rebuild(share float64) bool {
	r := w.anyRegion()
	return w.rebuildWith(r, r.newest(r.cluster().truth), share)
}

func (w *world) rebuildOld() bool {
	r := w.anyRegion()
	return w.rebuildWith(r, registry.Revision(w.dice.Int64N(int64(r.newest(r.cluster().truth))+1)), 1)
}

func (w *world) rebuildWith(r *simRegion, at registry.Revision, share float64) bool {
	old := r.cluster()
	var v view
	var ops []simOp
	for _, k := range sortedKeys(v.to(old.truth, at)) {
		if w.chance(share) {
			ops = append(ops, simOp{k, r.newValue()})
		}
	}
	old.end()
	w.pass(w.between(0, 5*time.Second))
	c := r.found(w.Members[r.number], w.dice.IntN(2*len(old.entries)+1))
	r.now.Store(c)
	w.tell("%s is rebuilt as %s, from %d entries on, with %d instances", r.name, c.incarnation, len(c.entries), len(ops))
	w.tasks.Go(func() { r.write(c.members[0], ops) })
	return true
}

func sortedKeys(of map[simKey]simValue) []simKey {
	keys := make([]simKey, 0, len(of))
	for k := range of {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b simKey) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.service, b.service), cmp.Compare(a.id, b.id))
	})
	return keys
}

// operator is somebody who does something to a copy.
func operator(action registry.RegionAction) func(*world) bool {
	return func(w *world) bool {
		c := w.anyCopy()
		m := c.in.anyMember()
		if m.registry.Region(c.key()).Cursor == (registry.ImportCursor{}) {
			return false
		}
		w.tasks.Go(func() { w.control(m, c, action) })
		return true
	}
}

func (w *world) control(m *simMember, c *simCopy, action registry.RegionAction) {
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	if _, err := m.registry.ControlRegion(ctx, c.key(), action); err != nil {
		w.tell("%v: %s: %v", c, action, err)
	}
}

// heal ends all faults.
func (w *world) heal() {
	w.tell("all faults end")
	for _, r := range w.regions {
		c := r.cluster()
		c.set(func() {
			c.stuck, c.loose = false, false
			for _, m := range c.members {
				m.behind = false
				m.catchUp()
			}
		})
		c.lead(c.leader, 0)
	}
	for _, c := range w.copies {
		l := c.in.links[c.of.name]
		l.set(func() { l.cut, l.breaks, l.latency = [2]bool{}, 0, latencyUsual })
	}
}
