package registry

import (
	"container/list"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// Reports are kept by the leader, in memory.
//
// Those who call an instance are the first to find that it does not work, and one
// of them alone may be wrong: his own network is broken, or he is mad. So a report
// is worth nothing by itself, and is not worth a place in the log. The leader
// remembers them for a while; when enough reporters agree, that is committed, see
// verdict.go. A new leader remembers nothing, and what was committed ends by itself.
//
// Who a reporter is nobody has to prove yet. What a host cannot choose is the address
// that it reports from: so reporters count by name and by address, whichever gives
// fewer. One host that gives itself ten names counts once; so do ten behind one
// address, for which a quorum of others has to be found.
type reports struct {
	now       func() time.Time // these two are set by newReports and never changed
	forgotten func(full string)
	wake      chan struct{} // holds one token while something is to be judged

	mu       sync.Mutex // guards what follows
	term     uint64     // that it was begun in
	of       map[InstanceKey]*accusation
	services map[ServiceKey]*list.List // of *statement, that which is oldest first
	all      *list.List                // the same of all services
	due      []InstanceKey             // to be judged
}

// The bounds of what the leader remembers. Where there is no room the oldest goes.
const (
	reportsKept          = 10 * time.Minute
	reportsMax           = 65_536
	reportsPerServiceMax = 4_096
	reportersMax         = 64 // of an instance
	reportersPerFromMax  = reportersMax / reportQuorumMax
)

// An accusation is what is said of one instance.
type accusation struct {
	key       InstanceKey
	endpoints []Endpoint // of the process that it is about; another one is not accused of it
	version   string
	by        []*statement // that which is oldest first
	reason    string       // the last one given

	due     bool      // it waits to be judged
	judged  time.Time // what was said up to then has had its effect
	brought bool      // what stands was brought about by what this leader remembers, all of it
}

// A statement is what one reporter says.
type statement struct {
	of          *accusation
	name, from  string
	since, last time.Time
	times       int

	inAll, inService *list.Element
}

func newReports(now func() time.Time, forgotten func(string)) *reports {
	r := &reports{now: now, forgotten: forgotten, wake: make(chan struct{}, 1)}
	r.begin(0)
	return r
}

// begin forgets everything: another leader remembered it.
func (r *reports) begin(term uint64) {
	r.term, r.due = term, nil
	r.of, r.services, r.all = make(map[InstanceKey]*accusation), make(map[ServiceKey]*list.List), list.New()
}

// lead begins a term; 0 is that another leads.
func (r *reports) lead(term uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begin(term)
}

func (r *reports) kept() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all.Len()
}

// A reportable is an instance as its reports are held against it.
type reportable struct {
	key      InstanceKey
	instance *Instance // nil = there is none whose lease holds
	rules    ReportRules
	room     int // so many more of its service may be critical by reports
}

// tell takes reports in, and says of each how many reporters count now.
func (r *reports) tell(term uint64, items []*recordv1.Report, about []reportable) []*recordv1.ToldReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.term != term {
		r.begin(term)
	}
	now := r.now()
	r.age(now)
	out := make([]*recordv1.ToldReport, len(items))
	for n, item := range items {
		out[n] = &recordv1.ToldReport{}
		if about[n].instance != nil {
			out[n].Found, out[n].Reporters = true, uint32(r.take(item, &about[n], now))
		}
	}
	return out
}

// age forgets what is too old for any policy.
func (r *reports) age(now time.Time) {
	for front := r.all.Front(); front != nil && now.Sub(front.Value.(*statement).last) >= reportsKept; front = r.all.Front() {
		s := front.Value.(*statement)
		s.of.brought = false
		r.forget(s)
	}
}

// take takes one report in.
func (r *reports) take(item *recordv1.Report, about *reportable, now time.Time) (reporters int) {
	a := r.of[about.key]
	if a != nil && !about.instance.isOf(a.endpoints, a.version) {
		r.drop(a)
		a = nil
	}
	switch {
	case a == nil && item.GetSuccess():
		return 0
	case item.GetSuccess():
		if s := a.find(item.GetReporter(), item.GetFrom()); s != nil {
			r.forget(s)
		}
	default:
		a = r.accuse(a, item, about, now)
	}
	if a.verdict(about, now) != verdictNone && !a.due {
		a.due = true
		r.due, r.of[a.key] = append(r.due, a.key), a // also when nobody says anything any more
		select {
		case r.wake <- struct{}{}:
		default: // a token is there already
		}
	}
	return a.counted(now, about.rules.Window)
}

func (r *reports) accuse(a *accusation, item *recordv1.Report, about *reportable, now time.Time) *accusation {
	if a == nil {
		a = &accusation{key: about.key, endpoints: about.instance.Endpoints, version: about.instance.Version}
	}
	a.reason = item.GetReason()
	s := a.find(item.GetReporter(), item.GetFrom())
	if s == nil {
		r.makeRoom(a, item.GetFrom())
		s = &statement{of: a, name: item.GetReporter(), from: item.GetFrom(), since: now}
		r.of[a.key] = a
	} else {
		r.unlist(s) // it is the newest now
	}
	s.last = now
	s.times++
	r.list(s)
	return a
}

// makeRoom forgets the oldest statement of whatever is full.
func (r *reports) makeRoom(a *accusation, from string) {
	k := a.key.ServiceKey()
	switch same := slices.DeleteFunc(slices.Clone(a.by), func(s *statement) bool { return s.from != from }); {
	case len(same) >= reportersPerFromMax:
		r.push(same[0], "address")
	case len(a.by) >= reportersMax:
		r.push(a.by[0], "instance")
	case r.services[k] != nil && r.services[k].Len() >= reportsPerServiceMax:
		r.push(r.services[k].Front().Value.(*statement), "service")
	case r.all.Len() >= reportsMax:
		r.push(r.all.Front().Value.(*statement), "all")
	}
}

// push forgets a statement that has to make room. Who stands by what was brought
// about is not known any more then.
func (r *reports) push(s *statement, full string) {
	s.of.brought = false
	r.forget(s)
	r.forgotten(full)
}

func (r *reports) list(s *statement) {
	k := s.of.key.ServiceKey()
	if r.services[k] == nil {
		r.services[k] = list.New()
	}
	s.inAll, s.inService = r.all.PushBack(s), r.services[k].PushBack(s)
	s.of.by = append(s.of.by, s)
}

func (r *reports) unlist(s *statement) {
	k := s.of.key.ServiceKey()
	r.all.Remove(s.inAll)
	if r.services[k].Remove(s.inService); r.services[k].Len() == 0 {
		delete(r.services, k)
	}
	s.of.by = slices.DeleteFunc(s.of.by, func(o *statement) bool { return o == s })
}

// forget forgets a statement.
func (r *reports) forget(s *statement) {
	r.unlist(s)
	r.tidy(s.of)
}

// tidy forgets an accusation that nobody makes, unless it waits to be judged.
func (r *reports) tidy(a *accusation) {
	if len(a.by) == 0 && !a.due {
		delete(r.of, a.key)
	}
}

// drop forgets all that is said of a process that is not there any more.
func (r *reports) drop(a *accusation) {
	for len(a.by) > 0 {
		r.forget(a.by[0])
	}
}

func (a *accusation) find(name, from string) *statement {
	for _, s := range a.by {
		if s.name == name && s.from == from {
			return s
		}
	}
	return nil
}

// counted are the reporters that count within a window: those that have reported
// since what was said last had its effect.
func (a *accusation) counted(now time.Time, window time.Duration) int {
	return distinct(a.within(now, window))
}

func (a *accusation) within(now time.Time, window time.Duration) []*statement {
	var out []*statement
	for _, s := range a.by {
		if now.Sub(s.last) < window && s.last.After(a.judged) {
			out = append(out, s)
		}
	}
	return out
}

// distinct counts reporters by name and by address, whichever gives fewer.
func distinct(by []*statement) int {
	var names, froms []string
	for _, s := range by {
		names, froms = append(names, s.title()), append(froms, s.from)
	}
	return min(len(sorted(names)), len(sorted(froms)))
}

// title is what a reporter is called: by his address, if he gives himself no name.
func (s *statement) title() string {
	if s.name == "" {
		return s.from
	}
	return s.name
}

// isOf says whether an instance is the same process, as far as can be told, as one with these.
func (i *Instance) isOf(endpoints []Endpoint, version string) bool {
	return i.Version == version && slices.Equal(i.Endpoints, endpoints)
}

// succeeds says whether a registration goes on with what callers have reported of the old
// one: a process that registers itself every few seconds must not be taken for one that works each time.
func (i *Instance) succeeds(old *Instance) bool {
	return old.alive() && i.isOf(old.Endpoints, old.Version)
}

// because is why an instance is given a condition, for people.
func (a *accusation) because(by []*statement, window time.Duration) (reason, who string) {
	const named = 3
	var names, froms []string
	for _, s := range by {
		names, froms = append(names, s.title()), append(froms, s.from)
	}
	names, froms = sorted(names), sorted(froms)
	reason = fmt.Sprintf("%d reporters within %d s: %s", distinct(by), int64(window/time.Second), firstOf(names, named))
	if a.reason != "" {
		reason += "; last: " + a.reason
	}
	return reason, firstOf(froms, named)
}

func firstOf(texts []string, most int) string {
	if len(texts) <= most {
		return strings.Join(texts, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(texts[:most], ", "), len(texts)-most)
}

// show is what is said of the instances of a service, sorted by id.
func (r *reports) show(term uint64, k ServiceKey, rules ReportRules) []*recordv1.ReportedInstance {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.term != term || r.services[k] == nil {
		return nil
	}
	now := r.now()
	r.age(now)
	shown := make(map[*accusation]struct{})
	var out []*recordv1.ReportedInstance
	for e := r.services[k].Front(); e != nil; e = e.Next() {
		a := e.Value.(*statement).of
		if _, twice := shown[a]; twice {
			continue
		}
		shown[a] = struct{}{}
		out = append(out, a.record(now, rules))
	}
	slices.SortFunc(out, func(a, b *recordv1.ReportedInstance) int { return strings.Compare(a.GetId(), b.GetId()) })
	return out
}

func (a *accusation) record(now time.Time, rules ReportRules) *recordv1.ReportedInstance {
	one := &recordv1.ReportedInstance{Id: a.key.ID, Reporters: uint32(a.counted(now, rules.Window)), Reason: a.reason}
	for _, s := range a.by {
		one.By = append(one.By, &recordv1.ReportedBy{Reporter: s.name, From: s.from, SinceMs: s.since.UnixMilli(), LastMs: s.last.UnixMilli(), Times: uint32(s.times)})
	}
	return one
}

// tellReports is the leader's answer to reports. It needs no barrier: who is not
// the leader any more remembers them for himself, and his verdicts come to nothing.
func (m *Machine) tellReports(ask *recordv1.TellReports) ([]byte, error) {
	term := m.leases.leading()
	if term == 0 {
		return nil, ErrNoLeader
	}
	told := &recordv1.ToldReports{}
	if show := ask.GetShow(); show != nil {
		k := ServiceKey{Namespace: show.GetNamespace(), Service: show.GetService()}
		rules, _ := m.reportRules(k)
		told.Instances = m.reports.show(term, k, rules)
	}
	keys := make([]InstanceKey, len(ask.GetItems()))
	for n, item := range ask.GetItems() {
		keys[n] = keyOfRecord(item.GetKey())
	}
	told.Outcomes = m.reports.tell(term, ask.GetItems(), m.reportables(keys))
	m.metrics.reported(ask.GetItems(), told.Outcomes)
	return encode(&recordv1.Answer{ToldReports: told}), nil
}

// reportables are instances as they are now.
func (m *Machine) reportables(keys []InstanceKey) []reportable {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]reportable, len(keys))
	for n, k := range keys {
		out[n] = reportable{key: k}
		svc := m.published.services[k.ServiceKey()]
		if svc == nil {
			continue
		}
		if i := m.published.instance(k); i != nil && i.alive() {
			out[n].instance = i
		}
		out[n].rules = svc.policy.ReportRules()
		out[n].room = svc.room(out[n].rules)
	}
	return out
}
