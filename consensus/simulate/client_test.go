package simulate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// client is a program that calls members.
type client struct {
	world *world
	id    int
	name  string
	calls int
	quit  bool // it begins nothing more
	cut   bool // its calls end with the process that was asked, as a connection does

	history []operation // of a client of the log
	holder  *holder
	watcher *watcher
}

// longTTL is of instances whose leases never run out in a schedule.
const longTTL = 7 * 24 * 3600

// linearizable is what is read when nothing else is asked for.
var linearizable = registry.Consistency{}

// ends of a call
type ending int

const (
	endAnswered ending = iota
	endRefused         // it certainly did nothing
	endUnknown
)

// callTime is how long clients wait for an answer.
const callTime = 2500 * time.Millisecond

// call has a member do something as its servers do, and waits for the answer:
// do runs on the member and returns what the client does with it.
func (c *client) call(m *member, do func(ctx context.Context, l *life) func()) ending {
	w := c.world
	var answer func()
	var asked *life
	end, over := endUnknown, false
	finish := func(e ending) {
		if !over {
			end, over = e, true
		}
	}
	w.after(w.network.delay(), func() {
		l := m.life
		if l == nil || l.gone() {
			w.after(w.between(0, w.Latency), func() { finish(endRefused) })
			return
		}
		asked = l
		l.hold(func() {
			w.spawn(l, "call of "+c.name, func() {
				ctx, cancel := w.withTimeout(context.Background(), callTime)
				defer cancel()
				back := do(ctx, l)
				if l.dead || w.chance(w.network.loss/2) {
					return
				}
				w.after(w.network.delay(), func() { answer = back; finish(endAnswered) })
			})
		})
	})
	w.after(callTime+50*time.Millisecond, func() { finish(endUnknown) })
	w.park(func() bool { return over || c.cut && asked != nil && asked.gone() })
	if end == endAnswered {
		answer()
	}
	return end
}

// refused tells whether an error says that nothing was done.
func refused(err error) bool {
	return !errors.Is(err, registry.ErrUnknownOutcome) && (errors.Is(err, registry.ErrNoLeader) || errors.Is(err, registry.ErrBusy) || errors.Is(err, registry.ErrStopping) || errors.Is(err, registry.ErrFull) || errors.Is(err, registry.ErrDiverged) || errors.Is(err, registry.ErrTooOld))
}

func (w *world) anyMember() *member {
	active := w.active()
	return active[w.dice.IntN(len(active))]
}

func (w *world) key(n int) registry.InstanceKey {
	return registry.InstanceKey{Namespace: "default", Service: fmt.Sprintf("s%d", n%2), ID: fmt.Sprintf("i%d", n)}
}

func refOf(k registry.InstanceKey) registry.InstanceRef {
	return registry.InstanceRef{Namespace: k.Namespace, Service: k.Service, ID: k.ID}
}

func registration(k registry.InstanceKey, value string, ttlSeconds int64) registry.Registration {
	return registry.Registration{
		Namespace: k.Namespace, Service: k.Service, ID: k.ID, Version: value, LeaseTTLSeconds: ttlSeconds,
		Endpoints: []registry.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 80}},
	}
}

func (w *world) newClient(name string, live func(*client)) *client {
	c := &client{world: w, id: len(w.clients), name: name}
	w.clients = append(w.clients, c)
	w.spawn(nil, name, func() { live(c) })
	return c
}

// value is what no other registration has.
func (c *client) value() string {
	c.calls++
	return fmt.Sprintf("%s.%d", c.name, c.calls)
}

// work is the life of a client that writes and reads.
func (c *client) work() {
	w := c.world
	for !c.quit {
		w.sleep(w.between(0, w.Thinking))
		k := w.key(w.dice.IntN(w.Keys))
		switch n := w.dice.IntN(10); {
		case n < 4:
			c.register(k)
		case n < 5:
			c.deregister(k)
		case n < 8:
			c.get(k, linearizable)
		case n < 9:
			c.get(k, registry.Stale(0))
		default:
			c.list()
		}
	}
}

// register writes, with a request id or without. With one it tries again until
// it knows what came of it.
func (c *client) register(k registry.InstanceKey) bool {
	w := c.world
	value, id := c.value(), ""
	if w.chance(0.5) {
		id = value
	}
	op := operation{key: k, kind: opRegister, value: value, call: w.now}
	for tries := 0; ; tries++ {
		end := c.call(w.anyMember(), func(ctx context.Context, l *life) func() {
			result, err := l.registry.Register(ctx, id, registration(k, value, longTTL))
			return func() { op.took(w, result, err) }
		})
		op.ended(end, tries)
		if op.end != endUnknown || id == "" || tries == 8 {
			break
		}
		w.faults.count("request tried again")
		w.sleep(w.between(0, 300*time.Millisecond))
	}
	if op.end == endAnswered {
		w.checks.answered(fmt.Sprintf("%v of %s", value, describeKey(k)), op.result.Revision, value)
	}
	c.note(op)
	return op.end == endAnswered
}

func (c *client) deregister(k registry.InstanceKey) {
	w := c.world
	op := operation{key: k, kind: opDeregister, call: w.now}
	end := c.call(w.anyMember(), func(ctx context.Context, l *life) func() {
		result, err := l.registry.Deregister(ctx, "", refOf(k))
		return func() { op.took(w, result, err) }
	})
	op.ended(end, 0)
	if op.end == endAnswered {
		w.checks.answered("the end of "+describeKey(k), op.result.Revision, "")
	}
	c.note(op)
}

func (c *client) get(k registry.InstanceKey, consistency registry.Consistency) {
	w := c.world
	op := operation{key: k, kind: opGet, call: w.now}
	floor := w.checks.acked
	m := w.anyMember()
	if consistency != linearizable {
		floor = 0
	}
	end := c.call(m, func(ctx context.Context, l *life) func() {
		i, at, err := l.registry.Get(ctx, refOf(k), consistency)
		if !l.dead && (err == nil || errors.Is(err, registry.ErrNotFound)) {
			w.checks.read(fmt.Sprintf("%s at %v", c.name, l.member), k, i, uint64(at), floor)
			return func() { op.saw(w, i, at) }
		}
		return func() { op.end = endRefused }
	})
	op.ended(end, 0)
	if consistency == linearizable && op.end == endAnswered {
		w.checks.answered("a read", op.result.Revision, "")
		c.note(op)
	}
}

// list reads all instances at one revision.
func (c *client) list() {
	w := c.world
	consistency, floor := registry.Stale(0), uint64(0)
	if w.chance(0.5) {
		consistency, floor = linearizable, w.checks.acked
	}
	c.call(w.anyMember(), func(ctx context.Context, l *life) func() {
		instances, at, err := l.registry.List(ctx, registry.Query{Namespace: "default", Statuses: []string{"any"}, Consistency: consistency})
		if err == nil && !l.dead {
			w.checks.list(fmt.Sprintf("%s at %v", c.name, l.member), instances, uint64(at), floor)
		}
		return func() {}
	})
}

// list is read, of all that there is.
func (c *checks) list(who string, instances []*registry.Instance, at, floor uint64) {
	shown := make(map[registry.InstanceKey]*registry.Instance)
	for _, i := range instances {
		shown[i.Key()] = i
	}
	for _, k := range c.model.keys {
		c.read(who, k, shown[k], at, floor)
	}
	c.counts["lists"]++
}

func (c *client) note(op operation) {
	op.answer = c.world.now
	c.history = append(c.history, op)
	c.world.checks.counts["operations"]++
	if op.end == endUnknown {
		c.world.checks.counts["unknown outcomes"]++
	}
	c.world.note("operation", uint64(c.id), uint64(op.kind), uint64(op.end), uint64(op.result.Revision))
	c.world.tell("%s: %v", c.name, op)
}
