package simulate

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/registry"
)

// model is what the committed commands mean, said once more and as simply as
// can be: what each instance is at each revision, and what changed there. It is
// given each entry once, by whichever member applies it first.
type model struct {
	facts   map[registry.InstanceKey][]fact // by revision
	changes []change                        // by revision
	values  map[string]uint64               // of registrations → where they were applied
	keys    []registry.InstanceKey

	protected map[scope]bool
}

// scope is where nothing expires: the zero one is everywhere, one without a zone
// is a service.
type scope struct {
	service registry.ServiceKey
	zone    string
}

// fact is what an instance is from a revision on.
type fact struct {
	revision uint64
	present  bool
	value    string // what its client registered: unique
	zone     string
	ttlMs    int64
	expired  bool
	suspect  bool // it should have expired
	lease    uint64
	since    time.Duration // when a member first applied it
}

// change is one event that watchers are told.
type change struct {
	revision uint64
	key      registry.InstanceKey
	fact     fact
}

func newModel() model {
	return model{facts: make(map[registry.InstanceKey][]fact), values: make(map[string]uint64), protected: make(map[scope]bool)}
}

// at is what an instance was at a revision.
func (m *model) at(k registry.InstanceKey, revision uint64) fact {
	facts := m.facts[k]
	n := sort.Search(len(facts), func(i int) bool { return facts[i].revision > revision })
	if n == 0 {
		return fact{}
	}
	return facts[n-1]
}

func (m *model) now(k registry.InstanceKey) fact { return m.at(k, ^uint64(0)) }

// between are the changes after a revision, up to another.
func (m *model) between(after, to uint64) []change {
	lo := sort.Search(len(m.changes), func(i int) bool { return m.changes[i].revision > after })
	hi := sort.Search(len(m.changes), func(i int) bool { return m.changes[i].revision > to })
	return m.changes[lo:hi]
}

func keyOf(k *recordv1.InstanceKey) registry.InstanceKey {
	return registry.InstanceKey{Namespace: k.GetNamespace(), Service: k.GetService(), ID: k.GetId()}
}

// set makes the next fact, and a change if a reader can tell.
func (m *model) set(k registry.InstanceKey, next fact) (changed bool) {
	before := m.now(k)
	if _, known := m.facts[k]; !known {
		m.keys = append(m.keys, k)
	}
	m.facts[k] = append(m.facts[k], next)
	if changed = !before.same(next); changed {
		m.changes = append(m.changes, change{next.revision, k, next})
	}
	return changed
}

func (f fact) same(o fact) bool {
	return f.present == o.present && f.value == o.value && f.ttlMs == o.ttlMs && f.expired == o.expired && f.suspect == o.suspect
}

func (f fact) String() string {
	switch {
	case !f.present:
		return "nothing"
	case f.expired:
		return f.value + ", expired"
	case f.suspect:
		return f.value + ", suspect"
	}
	return f.value
}

// apply says what the entry changes and what its proposer must be answered, nil when nobody looks at that.
func (m *model) apply(c *checks, e consensus.Entry) (answer []*recordv1.Result) {
	var command recordv1.Command
	if err := proto.Unmarshal(e.Data, &command); err != nil {
		c.world.fail("entry %d is no command: %v", e.Index, err)
		return nil
	}
	switch kind := command.GetKind().(type) {
	case *recordv1.Command_Register:
		for _, item := range kind.Register.GetItems() {
			answer = append(answer, m.register(c, e, item))
		}
	case *recordv1.Command_Deregister:
		for _, key := range kind.Deregister.GetKeys() {
			answer = append(answer, m.deregister(e, keyOf(key)))
		}
	case *recordv1.Command_Renew:
		for _, item := range kind.Renew.GetItems() {
			answer = append(answer, m.renew(e, item))
		}
	case *recordv1.Command_Expire:
		if kind.Expire.GetTerm() == e.Term {
			for _, item := range kind.Expire.GetItems() {
				m.expire(c, e, item)
			}
		}
	case *recordv1.Command_Checkpoint:
		c.told(e, kind.Checkpoint)
	case *recordv1.Command_JudgeReports:
		if kind.JudgeReports.GetTerm() == e.Term && c.world.street != nil {
			for _, item := range kind.JudgeReports.GetItems() {
				c.world.street.judged(item, e)
			}
		}
	case *recordv1.Command_Protect:
		if kind.Protect.GetTerm() == e.Term {
			for _, item := range kind.Protect.GetItems() {
				m.protect(c, e, item)
			}
		}
	}
	return answer
}

func (m *model) deregister(e consensus.Entry, k registry.InstanceKey) *recordv1.Result {
	if !m.now(k).present {
		return &recordv1.Result{Code: recordv1.Result_CODE_NOT_FOUND}
	}
	m.set(k, fact{revision: e.Index})
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: true}
}

func (m *model) register(c *checks, e consensus.Entry, item *recordv1.RegisterItem) *recordv1.Result {
	k, value := keyOf(item.GetKey()), item.GetSpec().GetVersion()
	if first, twice := m.values[value]; twice {
		c.world.fail("%s was registered at %d and is applied once more at %d", value, first, e.Index)
	}
	m.values[value] = e.Index
	before := m.now(k)
	changed := m.set(k, fact{revision: e.Index, present: true, value: value, zone: item.GetSpec().GetZone(), ttlMs: item.GetSpec().GetLeaseTtlMs(), lease: e.Index})
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Created: !before.present, Changed: changed}
}

func (m *model) renew(e consensus.Entry, item *recordv1.RenewItem) *recordv1.Result {
	k := keyOf(item.GetKey())
	next := m.now(k)
	if !next.present {
		return &recordv1.Result{Code: recordv1.Result_CODE_NOT_FOUND}
	}
	next.revision, next.lease, next.expired, next.suspect = e.Index, e.Index, false, false
	if ttl := item.GetLeaseTtlMs(); ttl > 0 {
		next.ttlMs = ttl
	}
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: m.set(k, next)}
}

func (m *model) expire(c *checks, e consensus.Entry, item *recordv1.ExpireItem) {
	k := keyOf(item.GetKey())
	next := m.now(k)
	if !next.present || next.expired || next.lease != item.GetLease() {
		return
	}
	next.revision, next.expired, next.suspect, next.since = e.Index, true, false, c.world.now
	m.set(k, next)
	c.expired(k, e)
}

// protect is one item of a leader's decision to hold back what expires.
func (m *model) protect(c *checks, e consensus.Entry, item *recordv1.ProtectItem) {
	switch kind := item.GetKind().(type) {
	case *recordv1.ProtectItem_Begin:
		m.protected[scopeOf(kind.Begin.GetScope())] = true
		c.protected(kind.Begin, e)
	case *recordv1.ProtectItem_End:
		delete(m.protected, scopeOf(kind.End))
	case *recordv1.ProtectItem_Keep:
		k := keyOf(kind.Keep.GetKey())
		next := m.now(k)
		if !next.present || next.suspect || next.lease != kind.Keep.GetLease() || !m.covers(k, next.zone) {
			return
		}
		next.revision, next.expired, next.suspect, next.since = e.Index, false, true, c.world.now
		m.set(k, next)
		c.suspected(k, e)
	}
}

// covers says whether nothing expires where an instance is.
func (m *model) covers(k registry.InstanceKey, zone string) bool {
	return m.protected[scope{}] || m.protected[scope{service: k.ServiceKey()}] || zone != "" && m.protected[scope{k.ServiceKey(), zone}]
}

func scopeOf(s *recordv1.ProtectionScope) scope {
	return scope{registry.ServiceKey{Namespace: s.GetService().GetNamespace(), Service: s.GetService().GetService()}, s.GetZone()}
}

// instanceIs compares what a reader was shown with a fact.
func instanceIs(i *registry.Instance, f fact) error {
	shown := fact{}
	if i != nil {
		shown = fact{present: true, value: i.Version, ttlMs: i.LeaseTTL.Milliseconds(), expired: i.Status == registry.StatusExpired, suspect: i.Status == registry.StatusSuspect}
	}
	if !shown.same(f) {
		return fmt.Errorf("%v is shown, and it is %v since %d", shown, f, f.revision)
	}
	return nil
}

// eventsAre compares what a watcher was told with the changes.
func eventsAre(events []registry.Event, want []change) error {
	told := slices.DeleteFunc(slices.Clone(events), func(e registry.Event) bool {
		return e.Kind != registry.EventInstancePut && e.Kind != registry.EventInstanceDelete
	})
	for i, c := range want {
		if i >= len(told) {
			return fmt.Errorf("%v of revision %d (%v) was not told", c.key, c.revision, c.fact)
		}
		e := told[i]
		key, gone := registry.InstanceKey{}, e.Kind == registry.EventInstanceDelete
		if e.Instance != nil {
			key = e.Instance.Key()
		} else if e.Previous != nil {
			key = e.Previous.Key()
		}
		if uint64(e.Revision) != c.revision || key != c.key || gone == c.fact.present {
			return fmt.Errorf("%v %v of revision %d was told where %v of revision %d (%v) is next", e.Kind, key, e.Revision, c.key, c.revision, c.fact)
		}
		if err := instanceIs(e.Instance, c.fact); err != nil {
			return fmt.Errorf("revision %d, %v: %w", c.revision, c.key, err)
		}
	}
	if len(told) > len(want) {
		return fmt.Errorf("%v of revision %d was told and is no change, or not of these revisions", told[len(want)].Kind, told[len(want)].Revision)
	}
	return nil
}
