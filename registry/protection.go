package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// Self-preservation.
//
// When a great part of the leases of a place run out at about the same time, it is
// likelier that their holders cannot reach the registry than that all of them are
// dead. To let them expire would take away from callers what may well serve. So
// nothing expires there for a while: who should have is suspect, and is used after
// all that are not, in whatever region.
//
// It must not become a state that stays. That a place is protected is committed with
// the time at which it began, so that no change of leaders begins the time anew, and
// it ends when few enough are suspect that it would not have begun, or at its limit.
// Each decision is the leader's, see guard.go; here is what they do to the state.

// A Scope is where self-preservation acts: the cluster, a service, or a zone of it.
type Scope struct {
	Kind    ScopeKind
	Service ServiceKey // unless it is the cluster
	Zone    string     // of ScopeZone
}

// ScopeKind says how far a scope goes. The numbers are stored.
type ScopeKind uint8

const (
	// ScopeCluster is everything.
	ScopeCluster ScopeKind = 1
	// ScopeService is a service.
	ScopeService ScopeKind = 2
	// ScopeZone is the instances of a service that are in one zone.
	ScopeZone ScopeKind = 3
)

// String gives the name that JSON uses.
func (k ScopeKind) String() string {
	switch k {
	case ScopeCluster:
		return "cluster"
	case ScopeService:
		return "service"
	case ScopeZone:
		return "zone"
	}
	return "unknown"
}

// String is for logs and reasons.
func (s Scope) String() string {
	switch s.Kind {
	case ScopeZone:
		return fmt.Sprintf("zone %s of service %s in namespace %s", quoted(s.Zone), quoted(s.Service.Service), quoted(s.Service.Namespace))
	case ScopeService:
		return fmt.Sprintf("service %s in namespace %s", quoted(s.Service.Service), quoted(s.Service.Namespace))
	}
	return "the cluster"
}

func (s Scope) compare(o Scope) int {
	return cmp.Or(cmp.Compare(s.Kind, o.Kind), s.Service.Compare(o.Service), cmp.Compare(s.Zone, o.Zone))
}

// covers says whether an instance of the scope's service is in the scope.
func (s Scope) covers(i *Instance) bool { return s.Kind != ScopeZone || s.Zone == i.Zone }

// scopesOf are those that an instance is in, the narrowest first. What has no zone
// is in none with others.
func scopesOf(i *Instance) []Scope {
	scopes := []Scope{{Kind: ScopeService, Service: i.ServiceKey()}, {Kind: ScopeCluster}}
	if i.Zone == "" {
		return scopes
	}
	return slices.Insert(scopes, 0, Scope{Kind: ScopeZone, Service: i.ServiceKey(), Zone: i.Zone})
}

// An ExpiryPause is that nothing expires in a scope, since when, why, and what ends it.
type ExpiryPause struct {
	Scope   Scope
	Since   int64         // Unix ms
	Limit   time.Duration // how long it lasts at most
	Lapsed  int           // leases that had run out when it began
	Leases  int           // of so many
	Least   int           // it is there while at least so many have run out,
	Percent int           // and more than so many in a hundred
}

// protectionsMax bounds the protections of a service. Where there are more zones in
// trouble, the service as a whole is.
const protectionsMax = 64

// Over is the time when the protection ends at the latest, in Unix ms.
func (p *ExpiryPause) Over() int64 { return p.Since + p.Limit.Milliseconds() }

// holds says whether so many suspects of so many leases are enough for it.
func (p *ExpiryPause) holds(suspects, leases int) bool {
	return suspects >= p.Least && suspects*100 > p.Percent*leases
}

// Reason is why it began, and what is said of the instances that are kept.
func (p *ExpiryPause) Reason() string {
	in := "the " + p.Scope.Kind.String()
	if p.Scope.Kind == ScopeZone {
		in = "zone " + p.Scope.Zone
	}
	return fmt.Sprintf("%d of %d leases of %s ran out", p.Lapsed, p.Leases, in)
}

// kept says that the instance has expired but for self-preservation.
func (i *Instance) kept() bool {
	if i.Health == nil || !i.alive() {
		return false
	}
	_, found := i.condition(SourceProtection, "")
	return found
}

// unkept is what is said of the instance when self-preservation has no word on it any more.
func (i *Instance) unkept() []Condition {
	if _, found := i.condition(SourceProtection, ""); !found {
		return i.Conditions()
	}
	return i.without(func(c Condition) bool { return c.Source == SourceProtection })
}

func searchProtection(protections []ExpiryPause, s Scope) (int, bool) {
	return slices.BinarySearchFunc(protections, s, func(p ExpiryPause, s Scope) int { return p.Scope.compare(s) })
}

// covering is a protection that an instance of the service is under, the narrowest; nil for none.
func covering(protections []ExpiryPause, cluster *ExpiryPause, i *Instance) *ExpiryPause {
	for at := range slices.Backward(protections) {
		if protections[at].Scope.covers(i) {
			return &protections[at]
		}
	}
	return cluster
}

// covering is the protection that an instance of this state is under.
func (s *state) covering(i *Instance) *ExpiryPause {
	svc := s.services[i.ServiceKey()]
	if svc == nil {
		return s.protection
	}
	return covering(svc.record.protections, s.protection, i)
}

// protections are all that there are, sorted by scope.
func (s *state) protections() []ExpiryPause {
	var all []ExpiryPause
	if s.protection != nil {
		all = append(all, *s.protection)
	}
	for _, svc := range s.paused {
		all = append(all, svc.record.protections...)
	}
	slices.SortFunc(all, func(a, b ExpiryPause) int { return a.Scope.compare(b.Scope) })
	return all
}

// leasesOf counts the leases of a scope that have not expired, and of these the suspects.
func (s *state) leasesOf(scope Scope) (leases, suspects int) {
	if scope.Kind == ScopeCluster {
		return s.tally.leases()
	}
	svc := s.services[scope.Service]
	switch {
	case svc == nil:
		return 0, 0
	case scope.Kind == ScopeService:
		return svc.tally.leases()
	}
	return scope.leases(svc.own())
}

// leases counts those of the scope among the instances of its service.
func (s Scope) leases(instances []*Instance) (leases, suspects int) {
	for _, i := range instances {
		if !s.covers(i) || !i.alive() {
			continue
		}
		leases++
		if i.kept() {
			suspects++
		}
	}
	return leases, suspects
}

func (t *tally) leases() (leases, suspects int) { return int(t.instances - t.ended), int(t.kept) }

// noteProtected keeps track of which services have protections.
func (s *state) noteProtected(svc *serviceState, before int) {
	switch after := len(svc.record.protections); {
	case before == 0 && after > 0:
		if s.paused == nil {
			s.paused = make(map[ServiceKey]*serviceState)
		}
		s.paused[svc.key] = svc
	case before > 0 && after == 0:
		delete(s.paused, svc.key)
	}
}

// protect applies one item, if its leader still leads.
func (t *step) protect(item *recordv1.ProtectItem, current bool) *recordv1.Result {
	if !current {
		return &recordv1.Result{Code: recordv1.Result_CODE_OK}
	}
	changed := false
	switch kind := item.GetKind().(type) {
	case *recordv1.ProtectItem_Begin:
		p := t.reader.protection(kind.Begin)
		if problem := p.unreadable(); problem != "" {
			panic("registry: a command " + problem)
		}
		p.Since = t.entry.Time
		changed = t.setProtection(p.Scope, &p)
	case *recordv1.ProtectItem_End:
		changed = t.setProtection(scopeOfRecord(kind.End), nil)
	case *recordv1.ProtectItem_Keep:
		changed = t.keep(kind.Keep)
	default:
		panic(fmt.Sprintf("registry: entry %d of term %d protects in a way that this version does not know: run a newer version", t.entry.Index, t.entry.Term))
	}
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: changed}
}

// setProtection begins a protection, or ends it with nil. One that is there stays as it is.
func (t *step) setProtection(s Scope, p *ExpiryPause) (changed bool) {
	if s.Kind == ScopeCluster {
		return t.setClusterProtection(p)
	}
	d := t.draft(s.Service)
	if d == nil {
		return false
	}
	at, found := searchProtection(d.record.protections, s)
	if found == (p != nil) || p != nil && len(d.record.protections) >= protectionsMax {
		return false
	}
	protections := slices.Clone(d.record.protections)
	if p == nil {
		protections = slices.Delete(protections, at, at+1)
	} else {
		protections = slices.Insert(protections, at, *p)
	}
	d.record.protections, d.visible, d.tell = protections, true, true
	return true
}

func (t *step) setClusterProtection(p *ExpiryPause) (changed bool) {
	if (t.state.protection != nil) == (p != nil) {
		return false
	}
	if p == nil {
		t.batch.Delete([]byte(storage.ProtectionKey))
	} else {
		t.batch.Set([]byte(storage.ProtectionKey), p.encode())
	}
	t.change(change{op: opProtection, protection: p, silent: true})
	return true
}

// keep makes a suspect of an instance whose lease has run out, be it that it expired
// shortly before the protection began.
func (t *step) keep(item *recordv1.ExpireItem) (changed bool) {
	k := keyOfRecord(item.GetKey())
	old := t.state.instance(k)
	if old == nil || old.LeaseID != "" || uint64(old.Lease) != item.GetLease() || old.kept() || old.pastGrace(t.state.services[k.ServiceKey()].policy.grace(), t.entry.Time) {
		return false
	}
	p := covering(t.draft(k.ServiceKey()).record.protections, t.state.protection, old)
	if p == nil {
		return false
	}
	next := *old
	next.ExpiredAt = 0
	said := Condition{Source: SourceProtection, Status: StatusSuspect, Since: t.entry.Time, Reason: t.reader.share(p.Reason())}
	next.settle(old, old.with(said), t.entry.Time)
	return t.put(&next, old)
}

// A protectChange is one item of a Protect command.
type protectChange struct {
	begin *ExpiryPause
	end   *Scope
	keep  dueLease // unless it is one of those
}

func protectCommand(term uint64, changes []protectChange) []byte {
	protect := &recordv1.Protect{Term: term}
	for _, c := range changes {
		item := &recordv1.ProtectItem{}
		switch {
		case c.begin != nil:
			begin := *c.begin
			begin.Since = 0
			item.Kind = &recordv1.ProtectItem_Begin{Begin: begin.record()}
		case c.end != nil:
			item.Kind = &recordv1.ProtectItem_End{End: c.end.record()}
		default:
			item.Kind = &recordv1.ProtectItem_Keep{Keep: &recordv1.ExpireItem{Key: keyToRecord(c.keep.key), Lease: uint64(c.keep.generation)}}
		}
		protect.Items = append(protect.Items, item)
	}
	return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_Protect{Protect: protect}})
}

func (s Scope) record() *recordv1.ProtectionScope {
	r := &recordv1.ProtectionScope{Kind: recordv1.ProtectionScope_Kind(s.Kind), Zone: s.Zone}
	if s.Kind != ScopeCluster {
		r.Service = &recordv1.ServiceKey{Namespace: s.Service.Namespace, Service: s.Service.Service}
	}
	return r
}

func scopeOfRecord(r *recordv1.ProtectionScope) Scope {
	return Scope{
		Kind: ScopeKind(r.GetKind()), Zone: r.GetZone(),
		Service: ServiceKey{Namespace: r.GetService().GetNamespace(), Service: r.GetService().GetService()},
	}
}

func (p *ExpiryPause) record() *recordv1.Protection {
	return &recordv1.Protection{
		Scope: p.Scope.record(), SinceMs: p.Since, LimitMs: p.Limit.Milliseconds(),
		Lapsed: uint32(p.Lapsed), Leases: uint32(p.Leases), Least: uint32(p.Least), Percent: uint32(p.Percent),
	}
}

func (d *reader) protection(r *recordv1.Protection) ExpiryPause {
	scope := scopeOfRecord(r.GetScope())
	scope.Service = ServiceKey{Namespace: d.share(scope.Service.Namespace), Service: d.share(scope.Service.Service)}
	scope.Zone = d.share(scope.Zone)
	return ExpiryPause{
		Scope: scope, Since: r.GetSinceMs(), Limit: time.Duration(r.GetLimitMs()) * time.Millisecond,
		Lapsed: int(r.GetLapsed()), Leases: int(r.GetLeases()), Least: int(r.GetLeast()), Percent: int(r.GetPercent()),
	}
}

// unreadable says why a stored protection cannot be understood, or nothing.
func (p *ExpiryPause) unreadable() string {
	if p.Scope.Kind == 0 || p.Scope.Kind.String() == ScopeKind(0).String() {
		return "has a protection of a kind that this version does not know: run a newer version"
	}
	return ""
}

func protectionsToRecord(protections []ExpiryPause) []*recordv1.Protection {
	var out []*recordv1.Protection
	for i := range protections {
		out = append(out, protections[i].record())
	}
	return out
}

func (d *reader) protections(record []*recordv1.Protection) []ExpiryPause {
	var out []ExpiryPause
	for _, p := range record {
		out = append(out, d.protection(p))
	}
	return out
}

// encode is the record of the whole cluster's protection.
func (p *ExpiryPause) encode() []byte {
	return encode(&recordv1.ProtectionRecord{Format: formatMax, Protection: p.record()})
}

func (d *reader) decodeProtection(value []byte) (*ExpiryPause, error) {
	var record recordv1.ProtectionRecord
	if err := proto.Unmarshal(value, &record); err != nil {
		return nil, fmt.Errorf("decode the protection of the cluster: %w", err)
	}
	if problem := formatProblem(record.GetFormat()); problem != "" {
		return nil, fmt.Errorf("the protection of the cluster %s", problem)
	}
	p := d.protection(record.GetProtection())
	if problem := p.unreadable(); problem != "" {
		return nil, fmt.Errorf("the record of the cluster's protection %s", problem)
	}
	return &p, nil
}

// A ProtectionState is a protection and what it stands at.
type ProtectionState struct {
	ExpiryPause
	Suspects  int // leases that are kept
	LeasesNow int // of so many in its scope
}

// EndsAt is the number of suspects at which the protection ends, as many leases as there are now.
func (p *ProtectionState) EndsAt() int { return max(p.Least-1, p.Percent*p.LeasesNow/100) }

// ProtectionStates are the protections of a service and of its zones.
func (s *Service) ProtectionStates() []ProtectionState {
	var all []ProtectionState
	for _, p := range s.Protections {
		state := ProtectionState{ExpiryPause: p}
		state.LeasesNow, state.Suspects = p.Scope.leases(own(s.Instances))
		all = append(all, state)
	}
	return all
}

// Protections are all that there are, sorted by scope.
func (r *Registry) Protections(ctx context.Context, consistency Consistency) ([]ProtectionState, Revision, error) {
	if err := r.freshen(ctx, consistency); err != nil {
		return nil, 0, err
	}
	all, at := r.machine.protections()
	return visible(ctx, all, func(p ProtectionState) Ask {
		return Ask{Verb: VerbRead, Resource: ResourceProtections, Namespace: p.Scope.Service.Namespace, Service: p.Scope.Service.Service}
	}), at, nil
}

func (m *Machine) protections() ([]ProtectionState, Revision) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var all []ProtectionState
	for _, p := range m.published.protections() {
		leases, suspects := m.published.leasesOf(p.Scope)
		all = append(all, ProtectionState{ExpiryPause: p, Suspects: suspects, LeasesNow: leases})
	}
	return all, m.revision
}
