package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// The bounds of a batch.
const (
	// BatchItemsMax is how many items one batch may have.
	BatchItemsMax = 4_096
	// batchCommandBytes is where a command of a batch ends before it has
	// commandItemsMax items: a log entry must not grow with what callers write.
	batchCommandBytes = 256 << 10
)

// A BatchItem is one write of a batch: one of the three.
type BatchItem struct {
	Register   *Registration
	Renew      *Renewal
	Deregister *InstanceRef
}

// A Renewal asks for the lease of an instance to be renewed.
type Renewal struct {
	Instance        InstanceRef
	LeaseTTLSeconds int64 // 0 = as it is
}

// A BatchResult is what became of one item.
type BatchResult struct {
	Result
	Err error // nil = it was done
}

// Batch does many writes in one call. Each is for itself: it is done whole or
// refused, whatever becomes of the others, and in no particular order, for which
// reason an instance may stand in a batch only once. The results are in the order
// of the items. Plain renewals stay out of the log, and go to the leader together;
// the rest becomes commands of bounded size. Only what makes the batch useless as
// a whole is an error of its own.
func (r *Registry) Batch(ctx context.Context, requestID string, items []BatchItem) ([]BatchResult, error) {
	if len(items) == 0 || len(items) > BatchItemsMax {
		return nil, &ValidationError{Problems: []Problem{{Field: "items", Reason: fmt.Sprintf("has %d items: 1 to %d", len(items), BatchItemsMax)}}}
	}
	b := &batch{registry: r, requestID: requestID, items: items, results: make([]BatchResult, len(items)), first: make(map[InstanceKey]int, len(items))}
	b.sort(ctx)
	b.renew(ctx)
	b.write(ctx, b.logged, "")
	b.write(ctx, b.deregistrations, "deregister") // before what needs room
	b.write(ctx, b.registrations, "register")
	r.machine.metrics.batched(items, b.results)
	return b.results, nil
}

// A batch is on its way.
type batch struct {
	registry  *Registry
	requestID string
	items     []BatchItem
	results   []BatchResult
	first     map[InstanceKey]int // the item that names an instance first

	renewals        []pendingRenewal
	renewalsAt      []int // the items that they are of
	logged          []batchWrite
	deregistrations []batchWrite
	registrations   []batchWrite

	broken error // what the first command that did not pass ended with
}

// A batchWrite is one item as a command of its own. Commands of one kind that are
// put one behind the other are one command of all their items.
type batchWrite struct {
	at      int
	command []byte
	refused func(*recordv1.Result) error // what the word of Apply means to the caller
}

// sort checks the items and says how each is to be done.
func (b *batch) sort(ctx context.Context) {
	for at := range b.items {
		if err := b.add(ctx, at); err != nil {
			b.results[at].Err = b.placed(at, err)
		}
	}
}

func (b *batch) add(ctx context.Context, at int) error {
	switch item := &b.items[at]; item.kind() {
	case batchRegister:
		normal, err := item.Register.normalize()
		if err := b.once(ctx, at, normal.instanceKey(), VerbRegister, err); err != nil {
			return err
		}
		b.registrations = append(b.registrations, batchWrite{at: at, command: registerCommand(normal), refused: normal.refused})
	case batchRenew:
		one, err := item.Renew.normalize()
		if err := b.once(ctx, at, one.key, VerbRenew, err); err != nil {
			return err
		}
		b.renewals, b.renewalsAt = append(b.renewals, one), append(b.renewalsAt, at)
	case batchDeregister:
		k, err := item.Deregister.key()
		if err := b.once(ctx, at, k, VerbDeregister, err); err != nil {
			return err
		}
		b.deregistrations = append(b.deregistrations, batchWrite{at: at, command: deregisterCommand(k, item.Deregister.Holder), refused: item.Deregister.Holder.judge})
	default:
		return &ValidationError{Problems: []Problem{{Reason: "is not one of " + strings.Join(batchKinds[:], ", ") + ": exactly one of them"}}}
	}
	return nil
}

// once refuses an item that the caller may not do, and a second one for an instance.
// One that is wrong already stays so, and does not count.
func (b *batch) once(ctx context.Context, at int, k InstanceKey, v Verb, wrong error) error {
	if wrong != nil {
		return wrong
	}
	if err := k.permit(ctx, v); err != nil {
		return err
	}
	first, twice := b.first[k]
	if !twice {
		b.first[k] = at
		return nil
	}
	return &ValidationError{Problems: []Problem{{
		Field:  "instanceId",
		Reason: fmt.Sprintf("names the instance that items[%d] names: an instance can be in a batch once, since items have no order", first),
	}}}
}

// placed says which item the fields of an error belong to.
func (b *batch) placed(at int, err error) error {
	var invalid *ValidationError
	if !errors.As(err, &invalid) {
		return err
	}
	where := fmt.Sprintf("items[%d]", at)
	if kind := b.items[at].kind(); kind >= 0 {
		where += "." + batchKinds[kind]
	}
	placed := &ValidationError{}
	for _, p := range invalid.Problems {
		p.Field = strings.TrimSuffix(where+"."+p.Field, ".")
		placed.Problems = append(placed.Problems, p)
	}
	return placed
}

// renew has the leader renew what stays out of the log, in as few questions as
// there can be. What cannot is left to the log.
func (b *batch) renew(ctx context.Context) {
	if len(b.renewals) == 0 {
		return
	}
	err := b.registry.renewer.renewAll(ctx, b.renewals)
	for n, at := range b.renewalsAt {
		result := &b.results[at]
		if err != nil {
			result.Err = fmt.Errorf("renew: %w", err)
			continue
		}
		renewal := &b.renewals[n]
		var logged bool
		if logged, result.Err = renewal.settled(); logged {
			b.logged = append(b.logged, batchWrite{at: at, command: renewCommand(renewal), refused: renewal.refused})
			continue
		}
		result.Revision, result.LeaseTTL = b.registry.machine.Revision(), renewal.granted
	}
}

// write proposes items, one command after the other. Their request ids follow
// from the request's: the same batch makes the same commands. Once a command did
// not pass, the rest is not tried: it would wait as long, each for itself.
func (b *batch) write(ctx context.Context, writes []batchWrite, kind string) {
	for n := 0; len(writes) > 0 && b.broken == nil; n++ {
		id := ""
		if b.requestID != "" && kind != "" {
			id = fmt.Sprintf("%s %s %d", b.requestID, kind, n)
		}
		size := commandOf(writes)
		b.propose(ctx, id, writes[:size])
		writes = writes[size:]
	}
	for _, w := range writes {
		b.results[w.at].Err = fmt.Errorf("%w, which ended with: %v", ErrNotTried, b.broken)
	}
}

// commandOf is how many of the items the next command takes: at least one.
func commandOf(writes []batchWrite) int {
	n, size := 1, len(writes[0].command)
	for n < len(writes) && n < commandItemsMax && size+len(writes[n].command) <= batchCommandBytes {
		size += len(writes[n].command)
		n++
	}
	return n
}

func (b *batch) propose(ctx context.Context, requestID string, writes []batchWrite) {
	var command []byte
	for _, w := range writes {
		command = append(command, w.command...)
	}
	applied, err := b.registry.replicator.Propose(ctx, requestID, command)
	var replies []*recordv1.Result
	if err == nil {
		replies, err = decodeReplies(applied.Reply, len(writes))
	}
	b.broken = err
	for n, w := range writes {
		result := &b.results[w.at]
		if err != nil {
			result.Err = fmt.Errorf("propose a part of a batch: %w", err)
			continue
		}
		result.Result = resultOf(applied.Revision, replies[n])
		result.Err = b.placed(w.at, w.refused(replies[n]))
	}
}

// The kinds of items, which are the names of their fields.
const (
	batchRegister = iota
	batchRenew
	batchDeregister
)

var batchKinds = [...]string{batchRegister: "register", batchRenew: "renew", batchDeregister: "deregister"}

// kind is -1 for an item that has none, or more than one.
func (i *BatchItem) kind() int {
	kind, given := -1, 0
	for k, has := range [...]bool{batchRegister: i.Register != nil, batchRenew: i.Renew != nil, batchDeregister: i.Deregister != nil} {
		if has {
			kind = k
			given++
		}
	}
	if given != 1 {
		return -1
	}
	return kind
}
