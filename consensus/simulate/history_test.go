package simulate

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/stellmap/stellmap/registry"
)

// operation is one call of a client and what it was told.
type operation struct {
	key          registry.InstanceKey
	kind         opKind
	value        string // registered, or read; "" = nothing was there
	call, answer time.Duration
	end          ending
	result       registry.Result
}

type opKind uint8

const (
	opRegister opKind = iota
	opDeregister
	opGet
)

func (o operation) String() string {
	what := [...]string{"register", "deregister", "get"}[o.kind]
	how := [...]string{"at " + fmt.Sprint(o.result.Revision), "was refused", "outcome unknown"}[o.end]
	return fmt.Sprintf("%s %s %s %s, asked at %.4fs", what, describeKey(o.key), o.value, how, o.call.Seconds())
}

// took is the answer to a write.
func (o *operation) took(w *world, result registry.Result, err error) {
	switch {
	case err == nil:
		o.end, o.result = endAnswered, result
	case refused(err):
		o.end = endRefused
	default:
		o.end = endUnknown
	}
}

// saw is the answer to a read.
func (o *operation) saw(w *world, i *registry.Instance, at registry.Revision) {
	o.end, o.result.Revision = endAnswered, at
	if i != nil {
		o.value = i.Version
	}
}

// ended adds how the call itself went. One that was sent before may still be on its way.
func (o *operation) ended(end ending, tries int) {
	if end != endAnswered {
		o.end = end
	}
	if o.end == endRefused && tries > 0 {
		o.end = endUnknown
	}
}

// checkTime is how long the checker may think about one instance.
const checkTime = time.Minute

// linearizable has porcupine look for an order of all that clients did, for each
// instance by itself. What is not known to have been done is looked up in the log.
func (c *checks) linearizable() {
	byKey := make(map[registry.InstanceKey][]porcupine.Operation)
	for _, one := range c.world.clients {
		for _, o := range one.history {
			if p, ok := c.forChecker(one.id, o); ok {
				byKey[o.key] = append(byKey[o.key], p)
			}
		}
	}
	for _, k := range c.model.keys {
		switch porcupine.CheckOperationsTimeout(registerModel, byKey[k], checkTime) {
		case porcupine.Illegal:
			c.world.fail("the history of %s is not linearizable", describeKey(k))
		case porcupine.Unknown:
			c.world.fail("it was not found out in %v whether the history of %s, %d operations, is linearizable", checkTime, describeKey(k), len(byKey[k]))
		}
		c.counts["operations checked"] += len(byKey[k])
	}
}

// forChecker says when an operation was done at the latest, or that it was not.
func (c *checks) forChecker(id int, o operation) (porcupine.Operation, bool) {
	p := porcupine.Operation{ClientId: id, Input: o, Output: o, Call: int64(o.call), Return: int64(o.answer)}
	switch {
	case o.end == endRefused, o.end == endUnknown && o.kind == opGet:
		return p, false
	case o.end == endUnknown:
		p.Return = math.MaxInt64
		return p, o.kind != opRegister || c.model.values[o.value] != 0
	}
	return p, true
}

// registerModel is one instance: what was registered last, or nothing.
var registerModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		value, o := state.(string), input.(operation)
		known := o.end == endAnswered
		switch o.kind {
		case opRegister:
			return !known || o.result.Created == (value == "") && o.result.Changed, o.value
		case opDeregister:
			return !known || o.result.Changed == (value != ""), ""
		}
		return o.value == value, value
	},
}

// inOrder: in the order of their revisions, no operation comes after one that
// began when it had been answered. This holds over all instances together.
func (c *checks) inOrder() {
	var all []operation
	for _, one := range c.world.clients {
		for _, o := range one.history {
			if o.end == endAnswered && o.kind != opGet {
				all = append(all, o)
			}
		}
	}
	slices.SortFunc(all, func(a, b operation) int { return cmp.Compare(a.result.Revision, b.result.Revision) })
	began := operation{}
	for _, o := range all {
		if o.answer < began.call {
			c.world.fail("%v, though it had been answered before this was asked: %v", o, began)
		}
		if o.call > began.call {
			began = o
		}
	}
}
