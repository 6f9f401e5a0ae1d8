package xds

import (
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/stellmap/stellmap/registry"
)

// A subscription is one type on one stream: what the client wants, what it has
// been sent, and what it made of it. The stream's goroutine owns it, but for
// what the follower marks.
type subscription struct {
	stream *stream
	typ    resourceType

	wildcard bool                 // the client asked for all
	listener *resource            // what "all" is for listeners
	names    map[string]*resource // asked for by name
	known    map[string]*known    // what the client may have
	todo     map[string]struct{}  // may have to be sent, or said to be gone
	forced   map[string]struct{}  // of todo: to be answered even if the client has it
	answer   bool                 // the next response is sent even if it is empty

	unheard bool // as state of the world: the client may have what only a response that it accepts makes it drop

	nonce    string      // of the last response
	pending  *response   // sent and not answered yet
	late     []*response // silent ones before it: the client may answer them yet; lateMax at most
	mute     bool        // it has been silent, and has not answered anything of this type since
	trial    [][]string
	refusals refusals
	waiting  time.Time            // since when something has waited for another type
	leaving  map[string]departure // clusters of todo that are gone and wait for the routes
	heard    uint64               // of the stream's responses: the latest of this type that was answered, or will not be
	changed  time.Time            // when the oldest change in todo was seen
	change   *change              // of todo: the oldest that has a trace
	held     string               // what the next response had to wait for last
	last     registry.Revision    // of the last response
	acked    registry.Revision    // of the last one accepted
	ackedAt  time.Time

	dirty map[string]struct{} // guarded by stream.mu, like since
	since time.Time           // when the oldest change in dirty was seen
	fresh *change             // of dirty: the oldest that has a trace
}

// known is what a client may have under a name: what it was sent last, nil = it
// may have that or what was before; and what it has last accepted, nil = nothing.
type known struct {
	sent, good *entry
	unsure     bool // it may have taken other content since, of a response that it refused
}

// lateMax bounds the silent responses that an answer is still known for. Of what
// falls off it is not known whether the client has it, until it is sent again.
const lateMax = 8

// A response is one message, as state of the world or as a delta.
type response struct {
	typ      resourceType
	nonce    string
	sequence uint64 // of the stream's responses
	revision registry.Revision
	version  string   // state of the world only
	entries  []*entry // in the order of their names
	removed  []string // deltas only
	errors   []resourceError
	forced   []string // to be answered even if the client has it
	told     []*entry // of entries: those that are not listed for completeness only
	fresh    []*entry // of told: those that the client has not accepted before
	size     int      // about, in bytes
	sentAt   time.Time
	since    time.Time // when the oldest change in it was seen; zero = none was waited for
	silent   bool      // not answered in time
	change   *change   // the oldest in it that has a trace; nil = none, or that was told
	held     string    // what it had to wait for last
	withdrew bool      // … and what was new in it has been taken back

	delivered time.Time // when the client had taken it; of those that have a trace
}

// A resourceError says why there is nothing under a name, to clients that want to know.
type resourceError struct {
	name   string
	code   codes.Code
	reason string
}

func newSubscription(s *stream, t resourceType) *subscription {
	return &subscription{
		stream: s, typ: t,
		names: make(map[string]*resource), known: make(map[string]*known),
		todo: make(map[string]struct{}), forced: make(map[string]struct{}),
		refusals: newRefusals(), dirty: make(map[string]struct{}), leaving: make(map[string]departure),
	}
}

// mark notes a change. The follower calls it.
func (b *subscription) mark(name string, n *notice) {
	s := b.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	b.dirty[name] = struct{}{}
	if b.since.IsZero() {
		b.since = n.at
	}
	b.fresh = b.fresh.merge(n.change)
	if !s.marked {
		s.marked = true
		n.streams = append(n.streams, s)
	}
}

// each is the subscription itself: what stands behind a subscriber.
func (b *subscription) each(f func(*subscription)) { f(b) }

// want makes the stream answer a name.
func (b *subscription) want(name string, force bool) {
	b.todo[name] = struct{}{}
	if force {
		b.forced[name] = struct{}{}
	}
}

// settled takes a name off the list.
func (b *subscription) settled(name string) {
	delete(b.todo, name)
	delete(b.forced, name)
	delete(b.leaving, name)
}

// ask subscribes to a name; false says that it was already.
func (b *subscription) ask(name string) bool {
	if b.names[name] != nil {
		return false
	}
	b.names[name] = b.stream.server.cache.subscribe(b.stream.keyOf(b.typ, name), b)
	return true
}

func (b *subscription) leave(name string) {
	r := b.names[name]
	if r == nil {
		return
	}
	delete(b.names, name)
	if r != b.listener { // which is wanted still, as part of "all"
		b.stream.server.cache.unsubscribe(r, b)
	}
}

// askAll subscribes to all, and wants all.
func (b *subscription) askAll() {
	if b.wildcard {
		return
	}
	b.wildcard = true
	c := b.stream.server.cache
	switch b.typ {
	case typeCluster:
		for _, name := range c.watchAll(b.stream.scope, b) {
			b.want(name, false)
		}
	case typeListener:
		b.listener = c.subscribe(b.stream.keyOf(typeListener, b.entrance()), b)
		b.want(b.entrance(), false)
		for _, name := range c.watchLocals(b.stream.scope, b) {
			b.want(name, false)
		}
	}
}

// entrance is the name of the listener that all who ask for all have.
func (b *subscription) entrance() string { return b.stream.node.entrance() }

func (b *subscription) leaveAll() {
	if !b.wildcard {
		return
	}
	b.wildcard = false
	c := b.stream.server.cache
	switch b.typ {
	case typeCluster:
		c.unwatchAll(b.stream.scope, b)
	case typeListener:
		if b.names[b.entrance()] == nil {
			c.unsubscribe(b.listener, b)
		}
		b.listener = nil
		c.unwatchLocals(b.stream.scope, b)
	}
}

func (b *subscription) close() {
	b.leaveAll()
	for name := range b.names {
		b.leave(name)
	}
}

// resource is what stands behind a name that the client wants; nil if it does not want it.
func (b *subscription) resource(name string) *resource {
	if r := b.names[name]; r != nil || !b.wildcard {
		return b.goOver(name, r)
	}
	if b.typ == typeCluster {
		return b.stream.server.cache.clusterIn(b.stream.scope, name)
	}
	if name == b.entrance() {
		return b.listener
	}
	return b.stream.server.cache.localIn(b.stream.scope, b, name)
}

// wanted is what the client should have under a name; absent if nothing.
func (b *subscription) wanted(name string) *entry {
	r := b.resource(name)
	if r == nil {
		return nil
	}
	return b.stream.server.cache.within(b.stream.bounds(), r)
}

// all are the names that the client wants, in order.
func (b *subscription) all() []string {
	var names []string
	for name := range b.names {
		names = append(names, name)
	}
	if b.wildcard && b.typ == typeCluster {
		names = append(names, b.stream.server.cache.clustersIn(b.stream.scope)...)
	} else if b.wildcard && b.typ == typeListener {
		names = append(append(names, b.entrance()), b.stream.server.cache.localsIn(b.stream.scope, b)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// refused says whether the client has refused this very content.
func (b *subscription) refused(e *entry) bool {
	_, ok := b.refusals.has(e)
	return ok
}

func (b *subscription) sentHash(name string) uint64 {
	if k := b.known[name]; k != nil {
		return k.sent.hashOf()
	}
	return 0
}

func (b *subscription) good(name string) *entry {
	if k := b.known[name]; k != nil {
		return k.good
	}
	return nil
}

// sending notes what the client has from now on, unless it says no.
func (b *subscription) sending(r *response) {
	for _, e := range r.entries {
		k := b.known[e.name]
		if k == nil {
			k = &known{}
			b.known[e.name] = k
		}
		k.sent = e
	}
	for _, name := range r.removed {
		delete(b.known, name)
	}
	if b.pending != nil { // it is silent
		b.late = append(b.late, b.pending)
		b.late = b.late[max(0, len(b.late)-lateMax):]
	}
	b.pending, b.nonce, b.answer, b.last = r, r.nonce, false, r.revision
}

// takeBack undoes the composing of a response that may not be sent yet: the state has moved
// meanwhile, so that its routes may name clusters which have to go first, or it has to take turns. What is
// meanwhile as the client has it is not sent then, unless the client is to be answered anyway.
func (b *subscription) takeBack(r *response) {
	for _, e := range r.entries {
		b.want(e.name, false)
	}
	for _, name := range r.removed {
		b.want(name, false)
	}
	for _, e := range r.errors { // which is how routes are gone as state of the world, and then it is not known any more that the client had them
		b.want(e.name, true)
	}
	for _, name := range r.forced {
		b.want(name, true)
	}
}

// accept takes an ACK. Answers come in the order of the responses: silent ones
// before this that the client has passed over it has nothing against.
func (b *subscription) accept(r *response) {
	passed := b.late
	if r == b.pending {
		b.pending, b.late = nil, nil
	} else {
		passed = nil
	}
	b.ackedAt, b.unheard = b.stream.server.now(), false
	for _, one := range append(passed, r) {
		b.acked = max(b.acked, one.revision)
		b.took(one)
	}
	if r.withdrew {
		b.bringBack(r.fresh[0])
	}
}

// took notes what a client has by a response that it accepted, be it that newer
// content is under way. A list of all makes it drop what is not on it.
func (b *subscription) took(r *response) {
	if !b.stream.delta && b.typ.whole() {
		for _, k := range b.known {
			k.good, k.unsure = nil, false
		}
	}
	for _, e := range r.entries {
		if k := b.known[e.name]; k != nil {
			k.good, k.unsure = e, false
		}
	}
	for _, name := range r.removed {
		if k := b.known[name]; k != nil {
			k.good, k.unsure = nil, false
		}
	}
}

// reject takes a NACK. The one new content in a response is to blame, and the
// client has what it had before; of several, halves are tried in turn, since the
// client's words often do not name the culprit. Nobody says what a client makes
// of the rest of a response that it refuses: some take it, some do not. So it is
// not known what it has of that, and what was gone is said again.
func (b *subscription) reject(r *response, reason string, at time.Time) {
	if r == b.pending {
		b.pending = nil
	}
	if r.withdrew { // the client has found its words
		b.refuse(r.fresh[0], reason, at)
		b.sayAgain(r)
		return
	}
	switch len(r.fresh) {
	case 0:
		return
	case 1:
		b.refuse(r.fresh[0], reason, at)
		b.goBack(r.fresh[0])
		b.doubt(r, r.fresh[0])
	default:
		b.try(r.fresh)
		b.doubt(r, nil)
	}
	b.sayAgain(r)
}

// doubt sends again what a refused response had to take something back that the
// client has accepted since. What it has of it, but for the culprit, is not known.
func (b *subscription) doubt(r *response, culprit *entry) {
	for _, e := range r.told {
		k := b.known[e.name]
		switch {
		case e == culprit || k == nil || k.good.hashOf() == e.hash:
		case k.sent == e:
			k.sent = nil
			b.want(e.name, false)
		default: // which matters when what was sent since is refused, too
			k.unsure = true
		}
	}
}

// goBack has the client have what it had before a content that it refuses; false
// says that newer content has been sent, or that it does not want any.
func (b *subscription) goBack(e *entry) bool {
	k := b.known[e.name]
	if k == nil || k.sent != e {
		return false
	}
	if k.sent = k.good; k.unsure {
		k.sent = nil
	}
	b.want(e.name, false)
	return true
}

// try sends the suspects again in two halves. Those that have been superseded are
// left out, which does not make the others the culprit.
func (b *subscription) try(fresh []*entry) {
	var suspects []string
	for _, e := range fresh {
		if k := b.known[e.name]; k != nil && k.sent == e {
			k.sent = nil
			b.want(e.name, false)
			suspects = append(suspects, e.name)
		}
	}
	half := len(suspects) / 2
	for _, group := range [][]string{suspects[half:], suspects[:half]} {
		if len(group) > 0 {
			b.trial = slices.Insert(b.trial, 0, group)
		}
	}
}

func (b *subscription) refuse(e *entry, reason string, at time.Time) {
	if b.refusals.add(content{e.name, e.hash}, rejection{reason: clip(reason), at: at, good: b.good(e.name)}) {
		b.stream.server.metrics.forgotten[b.typ].Add(1)
	}
}

// sayAgain repeats what a refused response said to be gone, until one is accepted.
// Clusters and listeners as state of the world are gone by being left out.
func (b *subscription) sayAgain(r *response) {
	switch {
	case b.stream.delta:
		for _, name := range r.removed {
			b.want(name, true)
		}
	case b.typ.whole():
		b.unheard = b.unheard || len(r.removed) > 0
		b.answer = b.answer || b.unheard
	default:
		for _, e := range r.errors {
			b.want(e.name, true)
		}
	}
}

// idle says that the client has answered all there was to send.
func (b *subscription) idle() bool {
	return b == nil || len(b.todo) == 0 && !b.answer && (b.pending == nil || b.pending.silent)
}

// due says that there is something to send that waits for no answer of its own type.
func (b *subscription) due() bool { return b.open() && (len(b.todo) > 0 || b.answer) }

// open says that another response may be sent.
func (b *subscription) open() bool { return b.pending == nil || b.pending.silent }

// take moves what the follower has marked to what is to be done. Caller holds stream.mu.
func (b *subscription) take() time.Time {
	since := b.since
	b.since = time.Time{}
	b.change, b.fresh = b.change.merge(b.fresh), nil
	for name := range b.dirty {
		b.todo[name] = struct{}{}
	}
	clear(b.dirty)
	return since
}
