package federation

import (
	"fmt"
	"strings"
	"time"

	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	"github.com/stellmap/stellmap/registry"
)

// A simSelection is what a region may export, or want of another, as its settings have it
// and as the model knows it.
type simSelection struct {
	texts  []string // none = everything
	covers func(k simKey, tier string) bool
}

var simSelections = []simSelection{
	{nil, func(simKey, string) bool { return true }},
	{[]string{"n0/*"}, func(k simKey, _ string) bool { return k.namespace == "n0" }},
	{[]string{"*/s1", "n1/s0"}, func(k simKey, _ string) bool {
		return k.service == "s1" || k.service == "s0" && k.namespace == "n1"
	}},
	{[]string{"*/* tier=gold"}, func(_ simKey, tier string) bool { return tier == "gold" }},
	{[]string{"n1/* tier=tin", "*/s2"}, func(k simKey, tier string) bool {
		return k.namespace == "n1" && tier == "tin" || k.service == "s2"
	}},
	{nil, func(simKey, string) bool { return false }}, // to be exported only
}

// nothingSelected is which of them has nothing.
const nothingSelected = 5

// A simPolicy is what is exported and what of that is wanted.
type simPolicy struct{ exported, wanted int }

func (p simPolicy) covers(k simKey, value string) bool {
	return simSelections[p.exported].covers(k, tierOf(value)) && simSelections[p.wanted].covers(k, tierOf(value))
}

// tierOf is the label of an instance that was put with a value: so a change takes it out
// of what is selected, and back.
func tierOf(value string) string {
	if strings.ContainsRune("02468", rune(value[len(value)-1])) {
		return "gold"
	}
	return "tin"
}

func (w *world) selected(n int) (out []registry.Selected) {
	for _, text := range simSelections[n].texts {
		one, err := registry.ParseSelected(text)
		w.must(err)
		out = append(out, one)
	}
	return out
}

func (w *world) exported(n int) registry.Selection {
	if n == nothingSelected {
		return registry.Nothing()
	}
	out, err := registry.Select(w.selected(n))
	w.must(err)
	return out
}

// policy is what the settings of both sides say now.
func (c *simCopy) policy() simPolicy {
	return simPolicy{c.of.exports, c.in.links[c.of.name].wants}
}

// calls notes how a source calls what it tells: another policy has another name.
func (w *world) calls(cursor *replicationv1.Cursor, policy simPolicy) {
	name := cursor.GetSelections()
	w.mu.Lock()
	was, known := w.policies[name]
	w.policies[name] = policy
	w.mu.Unlock()
	if name != "" && known && was != policy {
		w.fail("%+v and %+v are both called %q", was, policy, name)
	}
}

// policyOf is which policy a copy's cursor is of; the one before where it does not say.
func (c *simCopy) policyOf(at registry.ImportCursor) simPolicy {
	w := c.of.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if policy, known := w.policies[at.Selections]; known && at.Selections != "" {
		return policy
	}
	return c.selected
}

// decides says that a full sync tells less since another policy is in force, of the same
// cluster, and nothing is held that was missed for another reason.
func (c *simCopy) decides(tells *truth, policy simPolicy) bool {
	return c.region.Held.Since == 0 && c.selected != policy && tells != nil && c.whole.order == tells.order
}

// cursorIn is the cursor that a response has, if any.
func cursorIn(r *replicationv1.FollowResponse) *replicationv1.Cursor {
	switch k := r.GetKind().(type) {
	case *replicationv1.FollowResponse_End:
		return k.End.GetCursor()
	case *replicationv1.FollowResponse_Changes:
		return k.Changes.GetCursor()
	case *replicationv1.FollowResponse_Progress:
		return k.Progress.GetCursor()
	}
	return nil
}

// changeExported has a region export something else. Its members come to that one after
// the other, as they are restarted.
func (w *world) changeExported() bool {
	r := w.anyRegion()
	r.exports = w.dice.IntN(len(simSelections))
	w.restartAll(r, fmt.Sprint("exports ", simSelections[r.exports].texts))
	return true
}

// changeWanted has a region want something else of one that it follows.
func (w *world) changeWanted() bool {
	c := w.anyCopy()
	l := c.in.links[c.of.name]
	l.wants = w.dice.IntN(nothingSelected)
	w.restartAll(c.in, fmt.Sprint("wants of ", c.of.name, " ", simSelections[l.wants].texts))
	return true
}

func (w *world) restartAll(r *simRegion, why string) {
	w.tell("%s %s from now on", r.name, why)
	for _, m := range r.members() {
		m.stop()
		w.pass(w.between(0, 500*time.Millisecond))
		m.start()
	}
}
