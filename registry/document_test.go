package registry

import (
	"context"
	"errors"
	"fmt"
	"testing"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// TestDocumentsAgainstANaiveModel edits a few policies at random, under all
// conditions, beside a model that keeps every edit: versions, outcomes and what is
// said to have changed agree, and of the edits the newest are kept.
func TestDocumentsAgainstANaiveModel(t *testing.T) {
	random := newRandom(t)
	m := newMember(t, newManualClock())
	type version struct {
		by    string
		grace int64 // 0 = none is written down
	}
	model := make(map[ServiceKey][]version) // of every edit
	for n := range 2000 {
		k := ServiceKey{"prod", fmt.Sprint("s", random.IntN(3))}
		edits := model[k]
		now := version{}
		if len(edits) > 0 {
			now = edits[len(edits)-1]
		}
		w := Writing{By: fmt.Sprint("ann", n), DryRun: random.IntN(5) == 0}
		holds := true
		switch random.IntN(4) {
		case 0:
			seen := uint64(max(0, len(edits)-random.IntN(3)))
			w.If.Version, holds = &seen, seen == uint64(len(edits))
		case 1:
			w.If.Present, holds = true, now.grace != 0
		case 2:
			w.If.Absent, holds = true, now.grace == 0
		}
		wanted := int64(random.IntN(4))
		got, err := m.editGrace(k, wanted, w)
		changed := holds && wanted != now.grace
		at := fmt.Sprintf("edit %d of %s to %d if %+v, dry %v", n, k.Service, wanted, w.If, w.DryRun)
		if errors.Is(err, ErrVersion) == holds || err != nil && holds {
			t.Fatalf("%s: %v, of version %d", at, err, len(edits))
		}
		if changed && !w.DryRun {
			model[k] = append(edits, version{by: w.By, grace: wanted})
		}
		mustEqual(t, at+": whether it changed", got.Changed, changed)
		mustEqual(t, at+": whether it created", got.Created, changed && now.grace == 0)
		mustEqual(t, at+": the version", got.Version, uint64(len(model[k])))
		if changed {
			mustEqual(t, at+": the changes", fmt.Sprintf("%s", got.Changes), fmt.Sprintf("%s", graceChange(now.grace, wanted)))
		}
		document, _, err := m.registry.Policy(context.Background(), k, Consistency{})
		if len(model[k]) == 0 {
			mustEqual(t, at+": whether there is none", errors.Is(err, ErrNoDocument), true)
			continue
		}
		kept := model[k][max(0, len(model[k])-editsMax):]
		mustEqual(t, at+": the number of edits kept", len(document.Edits), len(kept))
		for i, e := range document.Edits {
			mustEqual(t, at+": who made an edit", e.By, kept[i].by)
			mustEqual(t, at+": its version", e.Version, uint64(len(model[k])-len(kept)+i+1))
			mustEqual(t, at+": whether something is written down", e.Content != nil, kept[i].grace != 0)
			if e.Content != nil {
				mustEqual(t, at+": what is", *e.Content.GraceSeconds, kept[i].grace)
			}
		}
	}
}

// editGrace has a policy say a grace, or nothing any more for 0.
func (m *member) editGrace(k ServiceKey, grace int64, w Writing) (Edited, error) {
	if grace == 0 {
		return m.registry.DeletePolicy(context.Background(), "", k, w)
	}
	return m.registry.PutPolicy(context.Background(), "", k, Policy{GraceSeconds: &grace}, w)
}

func graceChange(before, after int64) []FieldChange {
	c := FieldChange{Field: "graceSeconds"}
	if before != 0 {
		c.Before = fmt.Append(nil, before)
	}
	if after != 0 {
		c.After = fmt.Append(nil, after)
	}
	return []FieldChange{c}
}

// TestDocumentsAreBounded shows whose place a new document takes when there are as
// many as there may be: that of the one that was taken back first, and nobody's
// when all of them hold.
func TestDocumentsAreBounded(t *testing.T) {
	held := func(at Revision) *Document[Policy] {
		return (*Document[Policy])(nil).with(Edit[Policy]{Version: 1, Revision: at, Content: &Policy{}})
	}
	gone := func(at Revision) *Document[Policy] {
		return held(1).with(Edit[Policy]{Version: 2, Revision: at})
	}
	for name, c := range map[string]struct {
		all   documents[string, Policy]
		drop  string
		found bool
	}{
		"there is room":       {documents[string, Policy]{"a": gone(5)}, "", true},
		"the first goes":      {documents[string, Policy]{"a": gone(7), "b": gone(5), "c": held(2)}, "b", true},
		"all of them hold":    {documents[string, Policy]{"a": held(7), "b": held(5), "c": held(2)}, "", false},
		"more than there may": {documents[string, Policy]{"a": held(7), "b": held(5), "c": held(2), "d": gone(9)}, "d", true},
	} {
		drop, _, found := c.all.room(3)
		if drop != c.drop || found != c.found {
			t.Errorf("%s: %q goes, found %v; want %q, %v", name, drop, found, c.drop, c.found)
		}
	}
}

// TestTheOldestDeletedPolicyGivesItsPlace shows it in the log: what goes is gone
// from the state and the engine, and counts from 1 when it comes back.
func TestTheOldestDeletedPolicyGivesItsPlace(t *testing.T) {
	m := newMember(t, newManualClock())
	grace := int64(60)
	put := func(service string) Edited {
		t.Helper()
		got, err := m.registry.PutPolicy(context.Background(), "", ServiceKey{"prod", service}, Policy{GraceSeconds: &grace}, Writing{})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	put("first")
	if _, err := m.registry.DeletePolicy(context.Background(), "", ServiceKey{"prod", "first"}, Writing{}); err != nil {
		t.Fatal(err)
	}
	for n := range policiesMax - 1 { // the state alone is enough, and quick
		k := ServiceKey{"filler", fmt.Sprint(n)}
		d := (*Document[Policy])(nil).with(Edit[Policy]{Version: 1, Revision: 1, Content: &Policy{}})
		m.machine.working.policies[k], m.machine.published.policies[k] = d, d
	}
	put("next")
	if _, _, err := m.registry.Policy(context.Background(), ServiceKey{"prod", "first"}, Consistency{}); !errors.Is(err, ErrNoDocument) {
		t.Fatalf("the policy that was taken back is %v", err)
	}
	_, err := m.registry.PutPolicy(context.Background(), "", ServiceKey{"prod", "first"}, Policy{}, Writing{})
	var full *QuotaError
	if !errors.As(err, &full) || !errors.Is(err, ErrQuota) {
		t.Fatalf("one too many is answered with %v", err)
	}
	if _, err := m.registry.DeletePolicy(context.Background(), "", ServiceKey{"prod", "next"}, Writing{}); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "the version of the one that came back", put("first").Version, 1)
}

// TestDamagedDocumentsAreRefused shows what a member does not open with.
func TestDamagedDocumentsAreRefused(t *testing.T) {
	for name, value := range map[string][]byte{
		"damaged": {0xff}, "newer": encode(&recordv1.DocumentRecord{Format: formatMax + 1}), "empty": encode(&recordv1.DocumentRecord{Format: formatMax}), "without a format": nil,
	} {
		if d, err := decodePolicies(ServiceKey{"prod", "orders"}, value); err == nil {
			t.Errorf("a policy that is %s reads as %+v", name, d)
		}
		if d, err := newReader("here").decodeNamespaces("prod", value); err == nil {
			t.Errorf("a namespace's document that is %s reads as %+v", name, d)
		}
	}
}
