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

// The bounds of shared leases.
const (
	sharedLeasesMax         = 100_000
	sharedLeaseInstancesMax = 10_000
	// sharedExpiries is how many instances one entry lets go with their leases. The
	// rest follows tick by tick, like any crowd.
	sharedExpiries = 250
)

// A SharedLease holds many instances: a process with many services renews it once,
// and its end is the end of all of them. To the leader it is a lease like that of
// an instance, in the same queue and with the same rules; its key has an id only.
// It never changes: a change makes a new one.
//
// When it has run out, or has been revoked, it is ended for good. Its instances
// expire from the same entry on, so many in each, and with the last of them it is gone.
type SharedLease struct {
	ID         string
	TTL        time.Duration
	CreatedAt  int64     // Unix ms
	EndedAt    int64     // Unix ms; 0 while it holds
	Generation Revision  // of the grant, of the last logged renewal, or of the revocation
	Token      TokenHash // whoever renews or revokes it, or puts an instance under it, presents it
}

// sharedKey is the key of a shared lease among those of instances.
func sharedKey(id string) InstanceKey { return InstanceKey{ID: id} }

func (k InstanceKey) isShared() bool { return k.Service == "" }

// nowhere is the origin of what only has an id.
var nowhere Origin

// asInstance is the lease as the leader keeps it. One that has ended is due at once.
func (l *SharedLease) asInstance() *Instance {
	i := &Instance{Origin: &nowhere, ID: l.ID, Lease: l.Generation, LeaseTTL: l.TTL, Token: l.Token}
	if l.EndedAt != 0 {
		i.LeaseTTL = 0
	}
	return i
}

// underShared says that the instance lives as long as a shared lease does.
func (i *Instance) underShared() bool { return i.LeaseID != "" && i.alive() }

// A leaseState is a shared lease within a state, with the instances that live under it.
type leaseState struct {
	record  *SharedLease
	members []*Instance // sorted by key
}

func searchMember(members []*Instance, k InstanceKey) (int, bool) {
	return slices.BinarySearchFunc(members, k, func(i *Instance, k InstanceKey) int { return i.Key().Compare(k) })
}

// Compare orders keys by service, then by id.
func (k InstanceKey) Compare(o InstanceKey) int {
	return cmp.Or(k.ServiceKey().Compare(o.ServiceKey()), cmp.Compare(k.ID, o.ID))
}

// follow keeps the members of shared leases in step with an instance that takes
// another's place; either may be nil.
func (s *state) follow(i, old *Instance) {
	if old != nil && old.underShared() && (i == nil || i.LeaseID != old.LeaseID || !i.alive()) {
		l := s.leases[old.LeaseID]
		at, _ := searchMember(l.members, old.Key())
		l.members = slices.Delete(l.members, at, at+1)
	}
	if i == nil || !i.underShared() {
		return
	}
	l := s.leases[i.LeaseID]
	at, found := searchMember(l.members, i.Key())
	if found {
		l.members[at] = i
		return
	}
	l.members = slices.Insert(l.members, at, i)
}

func (s *state) putLease(record *SharedLease) {
	if l := s.leases[record.ID]; l != nil {
		l.record = record
		return
	}
	s.leases[record.ID] = &leaseState{record: record}
}

// removeLease is for one without instances.
func (s *state) removeLease(id string) {
	if l := s.leases[id]; l == nil || len(l.members) > 0 {
		panic("registry: removal of the shared lease " + id + ", which this state does not have, or which has instances")
	}
	delete(s.leases, id)
}

func (t *step) putLease(record *SharedLease) {
	t.batch.Set(storage.LeaseKey(record.ID), record.encode())
	t.change(change{op: opLeasePut, lease: record, silent: true})
}

// grant makes a shared lease. One that is there already with the same token is
// the caller's: his first answer was lost.
func (t *step) grant(g *recordv1.GrantLease) *recordv1.Result {
	token := t.token(g.GetToken())
	if old := t.state.leases[g.GetId()]; old != nil {
		if old.record.Token != token || old.record.EndedAt != 0 {
			return &recordv1.Result{Code: recordv1.Result_CODE_WRONG_TOKEN}
		}
		return &recordv1.Result{Code: recordv1.Result_CODE_OK}
	}
	if len(t.state.leases) >= sharedLeasesMax {
		return &recordv1.Result{Code: recordv1.Result_CODE_LEASE_FULL}
	}
	t.putLease(&SharedLease{
		ID: g.GetId(), TTL: time.Duration(g.GetTtlMs()) * time.Millisecond, CreatedAt: t.entry.Time,
		Generation: t.entry.Index, Token: token,
	})
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Created: true, Changed: true}
}

// revoke ends a shared lease now.
func (t *step) revoke(r *recordv1.RevokeLease) *recordv1.Result {
	l := t.state.leases[r.GetId()]
	switch {
	case l == nil || l.record.EndedAt != 0:
		return &recordv1.Result{Code: recordv1.Result_CODE_NOT_FOUND}
	case !l.record.Token.provedBy(r.GetProof()):
		return &recordv1.Result{Code: recordv1.Result_CODE_WRONG_TOKEN}
	}
	return t.end(l, t.entry.Index) // a new generation, which the leader finds due
}

// renewShared starts a new generation, as renew does.
func (t *step) renewShared(item *recordv1.RenewItem) *recordv1.Result {
	l := t.state.leases[item.GetKey().GetId()]
	switch {
	case l == nil || l.record.EndedAt != 0:
		return &recordv1.Result{Code: recordv1.Result_CODE_NOT_FOUND}
	case !l.record.Token.provedBy(item.GetProof()):
		return &recordv1.Result{Code: recordv1.Result_CODE_WRONG_TOKEN}
	}
	next := *l.record
	next.Generation = t.entry.Index
	t.putLease(&next)
	return &recordv1.Result{Code: recordv1.Result_CODE_OK}
}

// expireShared is fenced as expire is. Once the lease has ended there is nothing
// left to fence: what remains of its instances goes.
func (t *step) expireShared(item *recordv1.ExpireItem, current bool) *recordv1.Result {
	l := t.state.leases[item.GetKey().GetId()]
	if !current || l == nil || l.record.EndedAt == 0 && uint64(l.record.Generation) != item.GetLease() {
		return &recordv1.Result{Code: recordv1.Result_CODE_OK}
	}
	return t.end(l, l.record.Generation)
}

// end ends a shared lease, lets as many of its instances expire as the entry may
// have, and forgets it with the last.
func (t *step) end(l *leaseState, generation Revision) *recordv1.Result {
	if l.record.EndedAt == 0 {
		next := *l.record
		next.EndedAt, next.Generation = t.entry.Time, generation
		t.putLease(&next)
	}
	for len(l.members) > 0 && t.sharedEnded < sharedExpiries {
		t.lapseLease(l.members[len(l.members)-1])
		t.sharedEnded++
	}
	if len(l.members) == 0 {
		t.batch.Delete(storage.LeaseKey(l.record.ID))
		t.change(change{op: opLeaseDelete, lease: l.record, silent: true})
	}
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: true}
}

// join puts an instance that is being registered under a shared lease; nil when
// that went well. It takes the lease's token for its own.
func (t *step) join(next, old *Instance, item *recordv1.RegisterItem) *recordv1.Result {
	l := t.state.leases[item.GetLeaseId()]
	switch {
	case l == nil || l.record.EndedAt != 0:
		return &recordv1.Result{Code: recordv1.Result_CODE_NOT_FOUND}
	case !l.record.Token.provedBy(item.GetProof()):
		return &recordv1.Result{Code: recordv1.Result_CODE_WRONG_TOKEN}
	case len(l.members) >= sharedLeaseInstancesMax && (old == nil || !old.underShared() || old.LeaseID != l.record.ID):
		return &recordv1.Result{Code: recordv1.Result_CODE_LEASE_FULL}
	}
	next.LeaseID, next.LeaseTTL, next.Token = l.record.ID, l.record.TTL, l.record.Token
	return nil
}

func (l *SharedLease) encode() []byte {
	return encode(&recordv1.LeaseRecord{
		Format: formatMax, TtlMs: l.TTL.Milliseconds(), CreatedAtMs: l.CreatedAt, EndedAtMs: l.EndedAt,
		Generation: uint64(l.Generation), Token: l.Token.record(),
	})
}

func decodeLease(id string, value []byte) (*SharedLease, error) {
	var record recordv1.LeaseRecord
	if err := proto.Unmarshal(value, &record); err != nil {
		return nil, fmt.Errorf("decode the shared lease %q: %w", id, err)
	}
	if problem := formatProblem(record.GetFormat()); problem != "" {
		return nil, fmt.Errorf("the shared lease %q %s", id, problem)
	}
	token, ok := readToken(record.GetToken())
	if !ok {
		return nil, fmt.Errorf("the shared lease %q has the hash of a lease token in %d bytes, which this version does not know: run a newer version", id, len(record.GetToken()))
	}
	return &SharedLease{
		ID: id, TTL: time.Duration(record.GetTtlMs()) * time.Millisecond, CreatedAt: record.GetCreatedAtMs(), EndedAt: record.GetEndedAtMs(),
		Generation: Revision(record.GetGeneration()), Token: token,
	}, nil
}

// A LeaseGrant asks for a shared lease. Its id and token are chosen by whoever
// asks, at random: a repeated grant of the same is the same.
type LeaseGrant struct {
	ID         string
	TTLSeconds int64 // 0 = LeaseTTLDefault
	Token      string
}

// GrantLease makes a shared lease, which holds from now on.
func (r *Registry) GrantLease(ctx context.Context, requestID string, g LeaseGrant) (SharedLease, Revision, error) {
	var bad problems
	id := normalizeLeaseID(g.ID, &bad)
	seconds := g.TTLSeconds
	if seconds < 0 || seconds > leaseTTLSecondsMax {
		bad.add("ttlSeconds", fmt.Sprintf("%d is not allowed: 1 to %d, or 0 for the default", seconds, leaseTTLSecondsMax))
	}
	checkToken(g.Token, &bad)
	if err := bad.err(); err != nil {
		return SharedLease{}, 0, err
	}
	ttl := time.Duration(seconds) * time.Second
	if ttl == 0 {
		ttl = LeaseTTLDefault
	}
	if err := permitLease(ctx, VerbWrite); err != nil {
		return SharedLease{}, 0, err
	}
	grant := &recordv1.GrantLease{Id: id, TtlMs: ttl.Milliseconds(), Token: hashOf(g.Token).record()}
	result, reply, err := r.propose(ctx, requestID, encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_GrantLease{GrantLease: grant}}))
	if err != nil {
		return SharedLease{}, 0, fmt.Errorf("grant a lease: %w", err)
	}
	return SharedLease{ID: id, TTL: ttl}, result.Revision, sharedRefused(reply, Holder{Asked: true, Token: g.Token})
}

// RenewLease renews a shared lease, and so all instances that live under it. The
// error is ErrLeaseNotFound once it has ended: there is no revival of all of them.
func (r *Registry) RenewLease(ctx context.Context, id string, by Holder) (Result, error) {
	k, err := checkShared(id, by)
	if err != nil {
		return Result{}, err
	}
	if err := permitLease(ctx, VerbRenew); err != nil {
		return Result{}, err
	}
	return r.heartbeat(ctx, pendingRenewal{key: k, by: by})
}

// RevokeLease ends a shared lease: all of its instances expire.
func (r *Registry) RevokeLease(ctx context.Context, requestID, id string, by Holder) (Result, error) {
	k, err := checkShared(id, by)
	if err != nil {
		return Result{}, err
	}
	if err := permitLease(ctx, VerbWrite); err != nil {
		return Result{}, err
	}
	revoke := &recordv1.RevokeLease{Id: k.ID, Proof: by.proof()}
	result, reply, err := r.propose(ctx, requestID, encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_RevokeLease{RevokeLease: revoke}}))
	if err != nil {
		return Result{}, fmt.Errorf("revoke a lease: %w", err)
	}
	return result, sharedRefused(reply, by)
}

// Lease reads a shared lease and the instances that live under it, sorted by key.
func (r *Registry) Lease(ctx context.Context, id string, consistency Consistency) (*SharedLease, []*Instance, Revision, error) {
	k, err := checkShared(id, Holder{})
	if err != nil {
		return nil, nil, 0, err
	}
	if err := r.freshen(ctx, consistency); err != nil {
		return nil, nil, 0, err
	}
	if err := permitLease(ctx, VerbRead); err != nil {
		return nil, nil, 0, err
	}
	lease, members, at := r.machine.lease(k.ID)
	if lease == nil {
		return nil, nil, at, ErrLeaseNotFound
	}
	return lease, members, at, nil
}

// permitLease is Permit for shared leases, which are in no namespace.
func permitLease(ctx context.Context, v Verb) error {
	return Permit(ctx, Ask{Verb: v, Resource: ResourceLeases})
}

func checkShared(id string, by Holder) (InstanceKey, error) {
	var bad problems
	k := sharedKey(normalizeLeaseID(id, &bad))
	if by.Token != "" {
		checkToken(by.Token, &bad)
	}
	return k, bad.err()
}

func normalizeLeaseID(text string, bad *problems) string {
	if text == "" || !isID(text) {
		bad.add("leaseId", fmt.Sprintf("%s is not allowed: %s", quoted(text), idRule))
	}
	return text
}

// sharedRefused is what the word of Apply on a shared lease means; nil when it was done.
func sharedRefused(reply *recordv1.Result, by Holder) error {
	switch reply.GetCode() {
	case recordv1.Result_CODE_NOT_FOUND:
		return ErrLeaseNotFound
	case recordv1.Result_CODE_LEASE_FULL:
		return ErrLeasesFull
	}
	return by.judge(reply)
}

// holdingShared is a shared lease that has not ended, as the leader keeps it; or nil.
func (m *Machine) holdingShared(id string) *Instance {
	m.mu.RLock()
	defer m.mu.RUnlock()
	l := m.published.leases[id]
	if l == nil || l.record.EndedAt != 0 {
		return nil
	}
	return l.record.asInstance()
}

// lease is a shared lease as readers see it, nil when there is none.
func (m *Machine) lease(id string) (*SharedLease, []*Instance, Revision) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	l := m.published.leases[id]
	if l == nil {
		return nil, nil, m.revision
	}
	return l.record, slices.Clone(l.members), m.revision
}
