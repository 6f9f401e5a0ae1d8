package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// operation is one call of a client, all tries together, and what it was told.
type operation struct {
	kind   opKind
	client int
	value  string        // registered, or read; "" = nothing is there
	begin  time.Duration // since the history's begin
	end    time.Duration
	tries  int
	done   bool  // false = it may have happened, or happen at any later time
	was    *bool // what a write was told: whether the instance had been there; nil when an earlier try may have changed that
}

type opKind uint8

const (
	opRegister opKind = iota // and update
	opDeregister
	opRead
	opRenew // value "" = it was told that nothing is there
)

func (k opKind) String() string {
	return [...]string{"register", "deregister", "read", "renew"}[k]
}

func (k opKind) writes() bool { return k == opRegister || k == opDeregister }

func (o operation) String() string {
	told := ""
	switch {
	case !o.done:
		told = ", outcome unknown"
	case o.was != nil:
		told = fmt.Sprintf(", had been there: %v", *o.was)
	}
	return fmt.Sprintf("%9.4fs – %9.4fs  client %2d  %-10s %q (%d tries)%s", o.begin.Seconds(), o.end.Seconds(), o.client, o.kind, o.value, o.tries, told)
}

// recorder has the history: all that clients did, by instance.
type recorder struct {
	began time.Time

	mu         sync.Mutex // guards what follows
	of         map[string][]operation
	acked      int // operations that were answered
	writes     int // of them, writes
	unknown    int // writes whose outcome is not known
	slow       []operation
	firstAfter []*firstWrite
}

// slowWrite is from when on a write is kept to be looked at.
const slowWrite = time.Second

// firstWrite waits for the first write that was begun after a moment and acknowledged.
type firstWrite struct {
	since time.Duration
	acked chan time.Duration // how long after that moment
}

func newRecorder() *recorder {
	return &recorder{began: time.Now(), of: make(map[string][]operation)}
}

func (r *recorder) now() time.Duration { return time.Since(r.began) }

// add records an operation. What did not change anything and has no answer is no part of it.
func (r *recorder) add(id string, o operation) {
	if !o.done && !o.kind.writes() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of[id] = append(r.of[id], o)
	if !o.done {
		r.unknown++
		return
	}
	r.acked++
	if !o.kind.writes() {
		return
	}
	r.writes++
	if o.end-o.begin >= slowWrite {
		r.slow = append(r.slow, o)
	}
	r.firstAfter = slices.DeleteFunc(r.firstAfter, func(f *firstWrite) bool {
		after := o.begin >= f.since
		if after {
			f.acked <- o.end - f.since
		}
		return after
	})
}

// first asks for the first write after a moment.
func (r *recorder) first(since time.Duration) *firstWrite {
	f := &firstWrite{since: since, acked: make(chan time.Duration, 1)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.firstAfter = append(r.firstAfter, f)
	return f
}

// answered is how many operations were so far.
func (r *recorder) answered() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.acked
}

// An instance is left alone after so many operations, or writes of unknown
// outcome: each of the latter doubles what the checker has to think about.
const (
	keyOpsMax     = 200
	keyUnknownMax = 3
)

// worn tells whether an instance has seen enough.
func (r *recorder) worn(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	ops, unknown := r.of[id], 0
	for _, o := range ops {
		if !o.done {
			unknown++
		}
	}
	return len(ops) >= keyOpsMax || unknown >= keyUnknownMax
}

// checkTime is how long the checker may think about one instance.
const checkTime = time.Minute

// instanceModel is one instance: its value, "" when it is not there.
var instanceModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		value, o := state.(string), input.(operation)
		switch o.kind {
		case opRegister:
			return o.was == nil || *o.was == (value != ""), o.value
		case opDeregister:
			return o.was == nil || *o.was == (value != ""), ""
		case opRenew:
			return (o.value == "") == (value == ""), value
		}
		return o.value == value, value
	},
	DescribeOperation: func(input, _ any) string { return input.(operation).String() },
	DescribeState:     func(state any) string { return fmt.Sprintf("%q", state) },
}

// violation is an instance whose operations have no order that explains them.
type violation struct {
	id      string
	problem string
	ops     []operation
}

// violations has porcupine look for an order of the operations on each instance.
// That it finds out nothing in time is a violation, too.
func (r *recorder) violations() (found []violation, slowest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(r.of)) {
		begin := time.Now()
		result := porcupine.CheckOperationsTimeout(instanceModel, forChecker(r.of[id]), checkTime)
		slowest = max(slowest, time.Since(begin))
		switch result {
		case porcupine.Illegal:
			found = append(found, violation{id, "is not linearizable", r.of[id]})
		case porcupine.Unknown:
			found = append(found, violation{id, fmt.Sprintf("was not checked to the end in %v", checkTime), r.of[id]})
		}
	}
	return found, slowest
}

// forChecker says when each operation was done at the latest.
func forChecker(ops []operation) []porcupine.Operation {
	all := make([]porcupine.Operation, len(ops))
	for i, o := range ops {
		all[i] = porcupine.Operation{ClientId: o.client, Input: o, Call: int64(o.begin), Return: int64(o.end)}
		if !o.done {
			all[i].Return = math.MaxInt64
		}
	}
	return all
}

// What is shown of violations.
const (
	violationsShown = 3
	opsShown        = 80
)

// mustBeLinearizable checks the history and shows what cannot be.
func (r *recorder) mustBeLinearizable(t *testing.T) {
	t.Helper()
	found, slowest := r.violations()
	for _, v := range found[:min(len(found), violationsShown)] {
		t.Errorf("the history of %s %s; it is drawn in %s:\n%s", v.id, v.problem, v.draw(t), v.story())
	}
	if len(found) > 0 {
		t.Errorf("%d of %d histories are wrong", len(found), len(r.of))
	}
	t.Logf("%d instances, none with a history that is not linearizable; the longest check took %v", len(r.of)-len(found), slowest.Round(time.Millisecond))
}

// story is the operations in the order of their beginnings, the last of them if there are many.
func (v violation) story() string {
	ops := slices.SortedFunc(slices.Values(v.ops), func(a, b operation) int { return cmp.Compare(a.begin, b.begin) })
	var b strings.Builder
	if n := len(ops) - opsShown; n > 0 {
		fmt.Fprintf(&b, "(%d earlier ones)\n", n)
		ops = ops[n:]
	}
	for _, o := range ops {
		fmt.Fprintln(&b, o)
	}
	return b.String()
}

// draw writes porcupine's picture of the history to a file that stays.
func (v violation) draw(t *testing.T) string {
	t.Helper()
	f, err := os.CreateTemp("", "stellmap-history-"+v.id+"-*.html")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, info := porcupine.CheckOperationsVerbose(instanceModel, forChecker(v.ops), checkTime)
	if err := porcupine.Visualize(instanceModel, info, f); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// The checker finds what must not be, and takes what may be.
func TestTheCheckerOfHistories(t *testing.T) {
	at := func(begin, end int, o operation) operation {
		o.begin, o.end, o.done = time.Duration(begin), time.Duration(end), true
		return o
	}
	put := func(begin, end int, value string) operation {
		return at(begin, end, operation{kind: opRegister, value: value})
	}
	read := func(begin, end int, value string) operation {
		return at(begin, end, operation{kind: opRead, value: value})
	}
	lost := func(begin int, o operation) operation { o.begin, o.done = time.Duration(begin), false; return o }
	yes, no := true, false
	for _, c := range []struct {
		name string
		ops  []operation
		want bool
	}{
		{"a read sees the last write", []operation{put(1, 2, "a"), read(3, 4, "a")}, true},
		{"a lost write", []operation{put(1, 2, "a"), read(3, 4, "")}, false},
		{"a stale read", []operation{put(1, 2, "a"), put(3, 4, "b"), read(5, 6, "a")}, false},
		{"side by side, either", []operation{put(1, 5, "a"), put(1, 5, "b"), read(6, 7, "a")}, true},
		{"an unknown write may be seen late", []operation{put(1, 2, "a"), lost(3, put(0, 0, "b")), read(5, 6, "a"), read(7, 8, "b")}, true},
		{"and not be taken back", []operation{put(1, 2, "a"), lost(3, put(0, 0, "b")), read(5, 6, "b"), read(7, 8, "a")}, false},
		{"a renewal of what is gone", []operation{put(1, 2, "a"), at(3, 4, operation{kind: opDeregister}), at(5, 6, operation{kind: opRenew, value: "?"})}, false},
		{"nothing there to renew", []operation{at(5, 6, operation{kind: opRenew})}, true},
		{"created twice", []operation{at(1, 2, operation{kind: opRegister, value: "a", was: &no}), at(3, 4, operation{kind: opRegister, value: "b", was: &no})}, false},
		{"deregistered what was there", []operation{put(1, 2, "a"), at(3, 4, operation{kind: opDeregister, was: &yes})}, true},
	} {
		r := newRecorder()
		for _, o := range c.ops {
			r.add("i", o)
		}
		if found, _ := r.violations(); (len(found) == 0) != c.want {
			t.Errorf("%s: found %v", c.name, found)
		}
	}
}
