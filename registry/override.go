package registry

import (
	"cmp"
	"slices"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// overridesMax bounds the instances of a service that an operator has a word on,
// those included that are gone and whose override waits for them.
const overridesMax = 1_024

// A KeptOverride is the word of an operator on an instance that is not there. It is
// kept with the service: a host that was disabled for repair must not serve
// because its process was started anew, whether it deregistered before or not.
type KeptOverride struct {
	ID        string
	Condition Condition
}

func searchOverride(overrides []KeptOverride, id string) (int, bool) {
	return slices.BinarySearchFunc(overrides, id, func(o KeptOverride, id string) int { return cmp.Compare(o.ID, id) })
}

// keepOverride keeps an operator's word on an instance that goes.
func (d *draft) keepOverride(old *Instance) {
	c, overridden := old.Condition(SourceOperator, "")
	if !overridden {
		return
	}
	overrides := slices.Clone(d.record.overrides)
	at, _ := searchOverride(overrides, old.ID)
	d.record.overrides = slices.Insert(overrides, at, KeptOverride{ID: old.ID, Condition: c})
}

// takeOverride is an operator's word on an instance that comes back.
func (d *draft) takeOverride(id string) (Condition, bool) {
	at, found := searchOverride(d.record.overrides, id)
	if !found {
		return Condition{}, false
	}
	c := d.record.overrides[at].Condition
	d.record.overrides = slices.Delete(slices.Clone(d.record.overrides), at, at+1)
	return c, true
}

func overridesToRecord(overrides []KeptOverride) []*recordv1.Override {
	var out []*recordv1.Override
	for i := range overrides {
		out = append(out, &recordv1.Override{Id: overrides[i].ID, Condition: overrides[i].Condition.record()})
	}
	return out
}

func (d *reader) overrides(record []*recordv1.Override) []KeptOverride {
	var out []KeptOverride
	for _, o := range record {
		out = append(out, KeptOverride{ID: o.GetId(), Condition: d.condition(o.GetCondition())})
	}
	return out
}

// setCondition applies one item: what a source says of an instance, or no longer says.
func (t *step) setCondition(item *recordv1.ConditionItem) *recordv1.Result {
	k := keyOfRecord(item.GetKey())
	said := t.reader.condition(item.GetCondition())
	said.Since = t.entry.Time
	if lasts := item.GetLastsMs(); lasts > 0 {
		said.Until = t.entry.Time + lasts
	}
	if problem := said.unreadable(); problem != "" {
		panic("registry: a command " + problem)
	}
	old := t.state.instance(k)
	if old == nil {
		return t.setAbsent(k, &said, item.GetClear())
	}
	if !old.heldBy(item.GetProof()) {
		return &recordv1.Result{Code: recordv1.Result_CODE_WRONG_TOKEN}
	}
	if !seenAs(old, item, &said) {
		return &recordv1.Result{Code: recordv1.Result_CODE_SEEN_OTHERWISE}
	}
	before, found := old.Condition(said.Source, said.Name)
	switch {
	case item.GetClear() && !found:
		return &recordv1.Result{Code: recordv1.Result_CODE_OK}
	case !item.GetClear() && !found && said.Source == SourceOperator && t.overridden(k.ServiceKey()) >= overridesMax:
		return &recordv1.Result{Code: recordv1.Result_CODE_OVERRIDES_FULL}
	case found && before.Status == said.Status:
		said.Since = before.Since
	}
	conditions := old.with(said)
	if item.GetClear() {
		conditions = old.without(func(c Condition) bool { return c.compare(said.Source, said.Name) == 0 })
	}
	next := *old
	next.settle(old, conditions, t.entry.Time)
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: t.put(&next, old)}
}

// setAbsent is an operator who takes back his word on an instance that is gone.
func (t *step) setAbsent(k InstanceKey, said *Condition, clear bool) *recordv1.Result {
	d := t.draft(k.ServiceKey())
	if d == nil || !clear || said.Source != SourceOperator {
		return &recordv1.Result{Code: recordv1.Result_CODE_NOT_FOUND}
	}
	if _, found := d.takeOverride(k.ID); !found {
		return &recordv1.Result{Code: recordv1.Result_CODE_NOT_FOUND}
	}
	d.visible, d.tell = true, true
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: true}
}

// overridden counts the instances of a service, present or gone, that an operator has a word on.
func (t *step) overridden(k ServiceKey) int {
	return int(t.state.services[k].tally.overridden) + len(t.draft(k).record.overrides)
}

// seenAs says whether the instance is still as the proposer of an item had seen it.
func seenAs(old *Instance, item *recordv1.ConditionItem, said *Condition) bool {
	if lease := item.GetLease(); lease != 0 && Revision(lease) != old.Lease {
		return false
	}
	seen := Status(item.GetSeen())
	if seen == 0 {
		return true
	}
	now := StatusPassing
	if c, found := old.Condition(said.Source, said.Name); found {
		now = c.Status
	}
	return now == seen
}
