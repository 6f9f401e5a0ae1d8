package federation

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/registry"
)

// What is checked. The model knows what was written to each region and at which of its
// revisions, and nothing of how it is told or taken in. After each entry of a region's log
// that has to do with a copy, the copy is looked at: each instance that has come was put by
// its region, each that is gone was gone there; where the copy says up to which revision it
// has everything, it is what its region was then, but for what is held.

// A simKey is an instance as its own region calls it.
type simKey struct{ namespace, service, id string }

// A simOp writes an instance; "" removes it.
type simOp struct {
	key   simKey
	value string
}

// A truth is all that was ever committed in a cluster.
type truth struct {
	incarnation string
	order       int // of the region's clusters

	mu     sync.Mutex // guards what follows
	events []truthEvent
	of     map[simKey][]int // events of each
}

type truthEvent struct {
	simOp
	revision registry.Revision
	at       time.Duration
}

func (t *truth) add(at registry.Revision, op simOp, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = make(map[simKey][]int)
	}
	t.of[op.key] = append(t.of[op.key], len(t.events))
	t.events = append(t.events, truthEvent{op, at, now})
}

// put says whether an instance was put with a value at a revision.
func (t *truth) put(k simKey, v simValue) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.of[k] {
		if e := t.events[n]; e.revision == v.revision && e.value == v.value {
			return true
		}
	}
	return false
}

// goneIn is the first revision after another, and up to one more, at which an instance was
// removed, or put with what is not selected; 0 = none.
func (t *truth) goneIn(k simKey, after, upto registry.Revision, policy simPolicy) (at registry.Revision, removed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.of[k] {
		if e := t.events[n]; e.revision > after && e.revision <= upto && (e.value == "" || !policy.covers(k, e.value)) {
			return e.revision, e.value == ""
		}
	}
	return 0, false
}

// putIn says whether an instance was put after a revision and up to another.
func (t *truth) putIn(k simKey, after, upto registry.Revision) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.of[k], func(n int) bool {
		e := t.events[n]
		return e.value != "" && e.revision > after && e.revision <= upto
	})
}

// A simValue is what an instance was put with, and when.
type simValue struct {
	value    string
	revision registry.Revision
}

// A view is what there was at a revision.
type view struct {
	of   *truth
	next int
	at   registry.Revision
	has  map[simKey]simValue
}

// to moves it to a revision, forwards where it can.
func (v *view) to(of *truth, at registry.Revision) map[simKey]simValue {
	if v.of != of || at < v.at || v.has == nil {
		*v = view{of: of, has: make(map[simKey]simValue)}
	}
	of.mu.Lock()
	defer of.mu.Unlock()
	for ; v.next < len(of.events) && of.events[v.next].revision <= at; v.next++ {
		if e := of.events[v.next]; e.value == "" {
			delete(v.has, e.key)
		} else {
			v.has[e.key] = simValue{e.value, e.revision}
		}
	}
	v.at = at
	return v.has
}

// heldLess is how much less than it should what is held may be kept: a moment, and where
// clocks are wrong a step for each time that another one, or the same one, tells the time.
func (w *world) heldLess() time.Duration {
	if w.Skewed {
		return time.Minute
	}
	return time.Second
}

// A place is how far a copy is: in which cluster of its region, and where there.
type simPlace struct {
	order    int
	revision registry.Revision
}

func (p simPlace) before(o simPlace) bool {
	return p.order < o.order || p.order == o.order && p.revision < o.revision
}

// A simCopy is what a region has of another, and what was last seen of it.
type simCopy struct {
	in, of *simRegion

	cluster  *simCluster // in which it is; another one knows nothing
	has      map[simKey]simValue
	from     map[simKey]int      // the order of the cluster that told of each
	gone     map[simKey]simPlace // what went, and where it was gone
	region   registry.Region
	teller   *truth        // the last
	selected simPolicy     // as it was told last
	heldAt   time.Duration // since when what is held now is
	whole    simPlace      // the furthest
	view     view
}

func (c *simCopy) key() registry.RegionKey {
	return registry.RegionKey{Region: c.of.name, Cluster: c.of.id}
}

func (c *simCopy) String() string { return c.in.name + "'s copy of " + c.of.name }

// copyOf are the instances of a region that a member has. No two may be the same.
func copyOf(m *simMember, region string) (map[simKey]simValue, error) {
	all, _, err := m.registry.List(context.Background(), registry.Query{
		AllNamespaces: true, Regions: []string{region}, Statuses: []string{"any"}, Consistency: registry.Stale(0),
	})
	out := make(map[simKey]simValue, len(all))
	for _, i := range all {
		k, v := simKey{i.Namespace, i.Service, i.SourceID()}, simValue{i.Version, i.Revision}
		if i.Imported != nil {
			v.revision = i.Imported.Revision
		}
		if _, twice := out[k]; twice {
			return nil, fmt.Errorf("%v is there twice", k)
		}
		out[k] = v
	}
	return out, err
}

// checkEntry looks at what an entry has come to, at a member that has applied it.
func (w *world) checkEntry(m *simMember, e registry.Entry) {
	var command recordv1.Command
	w.must(proto.Unmarshal(e.Data, &command))
	change, control := command.GetImportChanges(), command.GetControlRegion()
	name := change.GetRegion() + control.GetRegion()
	if name == "" {
		return
	}
	c := m.cluster.region.copies[name]
	if c.cluster != m.cluster {
		*c = simCopy{in: c.in, of: c.of, cluster: m.cluster, has: make(map[simKey]simValue), from: make(map[simKey]int), gone: make(map[simKey]simPlace)}
	}
	step := registry.ImportStep(change.GetStep())
	if w.Big && (step == registry.ImportStepPart || step == registry.ImportStepChanges && e.Index%16 != 0) {
		return // there are too many of them to look at all of them each time
	}
	if err := c.check(m, step, control); err != nil {
		w.fail("%v, entry %d (%v%v): %w", c, e.Index, stepName(step), control.GetAction(), err)
	}
}

func stepName(s registry.ImportStep) string {
	return [...]string{"", "changes ", "begin ", "part ", "sweep "}[s]
}

// check holds a copy against what it was, and against what its region was.
func (c *simCopy) check(m *simMember, step registry.ImportStep, control *recordv1.ControlRegion) error {
	has, err := copyOf(m, c.of.name)
	if err != nil {
		return err
	}
	before, region := c.region, m.registry.Region(c.key())
	c.of.world.note("copy "+c.String(), uint64(step), uint64(control.GetAction()), uint64(len(has)), uint64(region.Cursor.Revision), region.Cursor.Sync, region.Cursor.Parts)
	c.of.world.tell("%v: %s%v: %d instances, at %+v, held %+v, paused %v", c, stepName(step), control.GetAction(), len(has), region.Cursor, region.Held, region.Paused)
	policy := c.policyOf(region.Cursor)
	defer func() { c.has, c.region, c.selected = has, region, policy }()
	if region.Held.Since != before.Held.Since && region.Held.Since != 0 {
		c.heldAt = c.of.world.now()
	}
	if before.Held.Since == 0 && region.Held.Since != 0 {
		c.of.world.count("a sweep is held")
	}
	if control.GetAction() == recordv1.ControlRegion_ACTION_AGE && len(has) < len(c.has) {
		c.of.world.count("a held sweep goes by itself")
		if held := c.of.world.now() - c.heldAt; held < registry.HeldSweepMax-c.of.world.heldLess() {
			return fmt.Errorf("what is held has gone after %v", held)
		}
	}
	if control.GetAction() == recordv1.ControlRegion_ACTION_FORGET {
		clear(c.from)
		clear(c.gone)
		return nil
	}
	if region.Cursor.Incarnation != "" {
		c.teller = c.of.truthOf(region.Cursor.Incarnation)
	}
	tells := c.teller // that of what is held, where all is to be told anew
	if control == nil && region.Cursor.Incarnation == "" {
		tells = nil
	}
	if before.Paused && control == nil {
		tells = nil // nothing may change
	}
	if err := c.checkSweep(tells, has, step, policy, &region); err != nil {
		return err
	}
	if err := c.checkGone(tells, has, policy, &region, control != nil); err != nil {
		return err
	}
	if err := c.checkCome(tells, has); err != nil {
		return err
	}
	return c.checkWhole(tells, has, policy, &region)
}

// checkSweep: a sweep has not taken much, unless it was decided, and then it has.
func (c *simCopy) checkSweep(tells *truth, has map[simKey]simValue, step registry.ImportStep, policy simPolicy, region *registry.Region) error {
	if step != registry.ImportStepSweep || c.of.world.Big {
		return nil
	}
	lost := 0
	for k := range c.has {
		if _, is := has[k]; !is {
			lost++
		}
	}
	much := lost > 0 && (lost == len(c.has) || lost >= 5 && lost*100 > 30*len(c.has))
	switch decided := c.decides(tells, policy); {
	case much && (!decided || lost == len(c.has)):
		return fmt.Errorf("a sweep has removed %d of %d instances at once", lost, len(c.has))
	case decided && region.Held.Since != 0 && region.Held.Instances < region.Held.Of: // all of it may be a mistake
		return fmt.Errorf("what was deselected is held: %+v", region.Held)
	case much:
		c.of.world.count("much is deselected at once")
	}
	return nil
}

// toldUpto is up to which revision a copy was told of what it has lost: what goes in its
// region later is no reason. An operator lets go of what was not told at all.
func (c *simCopy) toldUpto(tells *truth, at registry.ImportCursor, operated bool) registry.Revision {
	switch {
	case at.Anew() && c.whole.order == tells.order && !c.of.world.Big: // else not all was looked at
		return c.whole.revision
	case !at.Anew() && (operated || at.Sync == 0 && at.Parts == 0):
		return at.Revision
	}
	return math.MaxInt64 // within what is told
}

// checkGone: what the copy has lost was gone in its region, or was deselected.
func (c *simCopy) checkGone(tells *truth, has map[simKey]simValue, policy simPolicy, region *registry.Region, operated bool) error {
	for k, was := range c.has {
		if _, is := has[k]; is {
			continue
		}
		if tells == nil {
			return fmt.Errorf("%v is lost: it was %v, and nobody has told that it is gone", k, was)
		}
		after := was.revision
		if c.from[k] != tells.order {
			after = 0
		}
		at, removed := tells.goneIn(k, after, c.toldUpto(tells, region.Cursor, operated), policy)
		if at == 0 && c.from[k] == tells.order && policy.covers(k, was.value) {
			return fmt.Errorf("%v is lost: it was %v, and in %s it has not gone since", k, was, tells.incarnation)
		}
		c.lose(k, tells, at, removed, region)
	}
	return nil
}

// lose notes where an instance was gone: nothing older may be back. What was put with
// something else then may be back as that, and what was deselected as it was.
func (c *simCopy) lose(k simKey, tells *truth, at registry.Revision, removed bool, region *registry.Region) {
	same := c.from[k] == tells.order
	delete(c.from, k)
	switch upto := region.Cursor.Revision; {
	case at == 0 && same:
		return
	case at > 0 && !removed:
		at--
	case region.Cursor.Sync == 0 && region.Cursor.Parts == 0 && !tells.putIn(k, at, upto):
		at = max(at, upto)
	}
	c.gone[k] = simPlace{tells.order, at}
}

// checkCome: what has come, or changed, was put there, and not before it went.
func (c *simCopy) checkCome(tells *truth, has map[simKey]simValue) error {
	for k, is := range has {
		was, there := c.has[k]
		if there && was == is {
			if tells != nil && tells.put(k, is) {
				c.from[k] = tells.order
			}
			continue
		}
		if tells == nil {
			return fmt.Errorf("%v has come, as %v, and nobody may tell", k, is)
		}
		if !tells.put(k, is) {
			return fmt.Errorf("%v is %v, which nobody has put in %s", k, is, tells.incarnation)
		}
		at := simPlace{tells.order, is.revision}
		if gone, known := c.gone[k]; known && !gone.before(at) {
			return fmt.Errorf("%v is back, as of %v, though it was gone at %v", k, at, gone)
		}
		if there && !(simPlace{c.from[k], was.revision}).before(at) {
			return fmt.Errorf("%v has gone back to %v: it was of revision %d of cluster %d", k, is, was.revision, c.from[k])
		}
		c.from[k] = tells.order
	}
	return nil
}

// checkWhole: where the copy says that it has everything, it has.
func (c *simCopy) checkWhole(tells *truth, has map[simKey]simValue, policy simPolicy, region *registry.Region) error {
	if at := region.Cursor; tells == nil || at.Incarnation == "" || at.Sync != 0 || at.Parts != 0 {
		return nil
	}
	at := simPlace{tells.order, region.Cursor.Revision}
	if at.before(c.whole) {
		return fmt.Errorf("it has gone back from %v to %v", c.whole, at)
	}
	c.whole = at
	count := 0
	for k, v := range c.view.to(tells, at.revision) {
		if !policy.covers(k, v.value) {
			continue
		}
		count++
		if has[k] != v {
			return fmt.Errorf("up to %v it has everything, but %v is %v, not %v", at, k, has[k], v)
		}
	}
	if len(has) > count && region.Held.Since == 0 {
		return fmt.Errorf("at %v it has %d instances of %d, and nothing is held", at, len(has), count)
	}
	return nil
}

// level says what differs between a copy, at any member, and its region as it is now.
func (c *simCopy) level() error {
	now := c.of.cluster().truth
	var v view
	want, policy := v.to(now, c.of.newest(now)), c.policy()
	maps.DeleteFunc(want, func(k simKey, is simValue) bool { return !policy.covers(k, is.value) })
	for _, m := range c.in.members() {
		has, err := copyOf(m, c.of.name)
		if err != nil {
			return err
		}
		for k, is := range want {
			if has[k] != is {
				return fmt.Errorf("%v, member %d: %v is %v, not %v", c, m.number, k, has[k], is)
			}
		}
		if len(has) != len(want) {
			return fmt.Errorf("%v, member %d: it has %d instances of %d", c, m.number, len(has), len(want))
		}
	}
	return nil
}
