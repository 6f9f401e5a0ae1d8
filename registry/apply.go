package registry

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// How long things outlive their use. All of it is judged by the time of log
// entries, so that every member judges alike.
const (
	expiredGrace     = 10 * time.Minute // a heartbeat revives within it, unless the policy says otherwise
	baselineHalving  = time.Hour        // without the baseline being reached again
	serviceAfterlife = 24 * time.Hour   // of a service without instances
)

// serviceEndpointNamesMax bounds the endpoint names that a service gathers while
// it lives; a registration that would bring more is refused.
const serviceEndpointNamesMax = 64

// A step applies one entry to the working state, and notes what it did: as
// writes for the engine and as changes for the published state.
type step struct {
	state  *state
	reader *reader
	batch  *storage.Batch
	entry  Entry

	regionInstances int // how many a copy may have
	sweepMost       int // instances of one that one command removes

	sharedEnded int      // instances that went with their shared leases
	services    []*draft // the services that the entry touches, in the order it does
	changes     []change
}

// A draft is a service's record while an entry is applied; it is written once, at the end.
type draft struct {
	key     ServiceKey
	record  serviceRecord
	visible bool // a reader can tell that something of the service has changed
	tell    bool // there is something to tell that no instance's event says
	gone    bool
	handed  []*Instance // handed out before the entry though they were not routable; sorted by id
}

// run does what the command says. A command that this version cannot read stops the member.
func (t *step) run() []byte {
	command := decodeCommand(t.entry)
	var results []*recordv1.Result
	switch kind := command.GetKind().(type) {
	case *recordv1.Command_Register:
		results = each(kind.Register.GetItems(), t.register)
	case *recordv1.Command_Deregister:
		results = t.deregisterAll(kind.Deregister)
	case *recordv1.Command_Renew:
		results = each(kind.Renew.GetItems(), t.renew)
	case *recordv1.Command_Expire:
		current := kind.Expire.GetTerm() == t.entry.Term || mutant("expiry_of_a_deposed_leader") // else its leader has been deposed
		results = each(kind.Expire.GetItems(), func(item *recordv1.ExpireItem) *recordv1.Result { return t.expire(item, current) })
	case *recordv1.Command_Reap:
		results = each(kind.Reap.GetServices(), t.reap)
	case *recordv1.Command_Checkpoint:
		t.checkpoint(kind.Checkpoint)
	case *recordv1.Command_GrantLease:
		results = []*recordv1.Result{t.grant(kind.GrantLease)}
	case *recordv1.Command_RevokeLease:
		results = []*recordv1.Result{t.revoke(kind.RevokeLease)}
	case *recordv1.Command_SetConditions:
		results = each(kind.SetConditions.GetItems(), t.setCondition)
	case *recordv1.Command_EditPolicy:
		results = []*recordv1.Result{t.editPolicy(kind.EditPolicy)}
	case *recordv1.Command_EditUpstreams:
		results = []*recordv1.Result{t.editUpstreams(kind.EditUpstreams)}
	case *recordv1.Command_EditNamespace:
		results = []*recordv1.Result{t.editNamespace(kind.EditNamespace)}
	case *recordv1.Command_Protect:
		current := kind.Protect.GetTerm() == t.entry.Term
		results = each(kind.Protect.GetItems(), func(item *recordv1.ProtectItem) *recordv1.Result { return t.protect(item, current) })
	case *recordv1.Command_JudgeReports:
		current := kind.JudgeReports.GetTerm() == t.entry.Term
		results = each(kind.JudgeReports.GetItems(), func(item *recordv1.ReportVerdict) *recordv1.Result { return t.judgeReports(item, current) })
	case *recordv1.Command_ImportChanges:
		results = []*recordv1.Result{t.importChanges(kind.ImportChanges)}
	case *recordv1.Command_ControlRegion:
		results = []*recordv1.Result{t.controlRegion(kind.ControlRegion)}
	case *recordv1.Command_EditRole:
		results = []*recordv1.Result{t.editRole(kind.EditRole)}
	case *recordv1.Command_EditBinding:
		results = []*recordv1.Result{t.editBinding(kind.EditBinding)}
	case *recordv1.Command_GrantToken:
		results = []*recordv1.Result{t.grantToken(kind.GrantToken)}
	case *recordv1.Command_RevokeToken:
		results = []*recordv1.Result{t.revokeToken(kind.RevokeToken)}
	case *recordv1.Command_AgeRegion:
		results = []*recordv1.Result{t.ageRegion(kind.AgeRegion)}
	default:
		panic(fmt.Sprintf("registry: entry %d of term %d has a command of a kind that this version does not know: run a newer version", t.entry.Index, t.entry.Term))
	}
	t.finish()
	t.remember()
	return encode(&recordv1.Reply{Results: results})
}

func decodeCommand(e Entry) *recordv1.Command {
	var command recordv1.Command
	if err := proto.Unmarshal(e.Data, &command); err != nil {
		panic(fmt.Sprintf("registry: entry %d of term %d cannot be read: %v", e.Index, e.Term, err))
	}
	if problem := formatProblem(command.GetFormat()); problem != "" {
		panic(fmt.Sprintf("registry: entry %d of term %d %s", e.Index, e.Term, problem))
	}
	return &command
}

func each[T any](items []T, do func(T) *recordv1.Result) []*recordv1.Result {
	results := make([]*recordv1.Result, 0, len(items))
	for _, item := range items {
		results = append(results, do(item))
	}
	return results
}

func (t *step) register(item *recordv1.RegisterItem) *recordv1.Result {
	k := keyOfRecord(item.GetKey())
	old := t.state.instance(k)
	if old != nil && old.alive() && !old.kept() && !old.heldBy(item.GetProof()) { // a suspect's holder may have lost its token with its life
		return &recordv1.Result{Code: recordv1.Result_CODE_WRONG_TOKEN}
	}
	next := t.reader.instance(k, item.GetSpec())
	next.Token = t.token(item.GetToken())
	if item.GetLeaseId() != "" {
		if refused := t.join(next, old, item); refused != nil {
			return refused
		}
	}
	for at := range next.Checks() {
		if problem := next.Health.Checks[at].unreadable(); problem != "" {
			panic(fmt.Sprintf("registry: the registration of entry %d of term %d %s", t.entry.Index, t.entry.Term, problem))
		}
	}
	if full := t.full(k, old); full != nil {
		return &recordv1.Result{Code: recordv1.Result_CODE_QUOTA_FULL, Full: full}
	}
	if !t.knowService(k.ServiceKey(), next.Endpoints) {
		return &recordv1.Result{Code: recordv1.Result_CODE_ENDPOINT_NAMES_FULL}
	}
	next.RegisteredAt = t.entry.Time
	var conditions []Condition
	if old != nil {
		next.RegisteredAt = old.RegisteredAt
		conditions = old.without(func(c Condition) bool {
			return !c.Source.survivesRegistration() && !(c.Source == SourceReports && next.succeeds(old))
		})
	} else if c, overridden := t.draft(k.ServiceKey()).takeOverride(k.ID); overridden {
		conditions = []Condition{c}
	}
	next.LastHeartbeat, next.Lease = t.entry.Time, t.entry.Index
	if old != nil {
		next.Number = old.Number
	}
	if next.Number == 0 {
		next.Number = t.state.told.number()
	}
	next.settle(old, next.begin(old, conditions, t.entry.Time), t.entry.Time)
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Created: old == nil, Changed: t.put(next, old), GrantedMs: t.granted(next)}
}

// knowService makes the service if need be, and notes endpoint names that it
// has not had so far; false says that it has too many already.
func (t *step) knowService(k ServiceKey, endpoints []Endpoint) bool {
	var known []ServiceEndpoint
	if d := t.draft(k); d != nil {
		known = d.record.endpoints
	}
	names := slices.Clone(known)
	for _, e := range endpoints {
		if !slices.ContainsFunc(names, func(n ServiceEndpoint) bool { return n.Name == e.Name }) {
			names = append(names, ServiceEndpoint{Name: e.Name, Protocol: e.Protocol})
		}
	}
	if len(names) > serviceEndpointNamesMax {
		return false
	}
	d := t.draft(k)
	if d == nil {
		t.createService(k, names, nil)
	} else if len(names) > len(known) {
		d.record.endpoints, d.visible, d.tell = names, true, true
	}
	return true
}

func (t *step) createService(k ServiceKey, names, imported []ServiceEndpoint) {
	k = ServiceKey{Namespace: t.reader.share(k.Namespace), Service: t.reader.share(k.Service)}
	record := serviceRecord{created: t.entry.Index, revision: t.entry.Index, endpoints: names, imported: imported}
	t.services = append(t.services, &draft{key: k, record: record, visible: true})
	t.change(change{service: k, op: opServicePut, record: record})
	t.batch.Set(storage.ServiceKey(k.Namespace, k.Service), record.encode()) // what the entry does after that need not change it
}

// token is what a command says of one. What cannot be read stops the member.
func (t *step) token(record []byte) TokenHash {
	h, ok := readToken(record)
	if !ok {
		panic(fmt.Sprintf("registry: entry %d of term %d has the hash of a lease token in %d bytes, which this version does not know: run a newer version", t.entry.Index, t.entry.Term, len(record)))
	}
	return h
}

func (t *step) deregisterAll(d *recordv1.Deregister) []*recordv1.Result {
	results := make([]*recordv1.Result, 0, len(d.GetKeys()))
	for i, key := range d.GetKeys() {
		var proof []byte
		if i < len(d.GetProofs()) { // logs of before there were tokens have none
			proof = d.GetProofs()[i]
		}
		results = append(results, t.deregister(key, proof))
	}
	return results
}

func (t *step) deregister(key *recordv1.InstanceKey, proof []byte) *recordv1.Result {
	old := t.state.instance(keyOfRecord(key))
	if old == nil {
		return &recordv1.Result{Code: recordv1.Result_CODE_NOT_FOUND}
	}
	if !old.heldBy(proof) {
		return &recordv1.Result{Code: recordv1.Result_CODE_WRONG_TOKEN}
	}
	t.remove(old)
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: true}
}

// renew starts a new lease generation, so that an expiry of the old one that is
// still on its way does nothing.
func (t *step) renew(item *recordv1.RenewItem) *recordv1.Result {
	k := keyOfRecord(item.GetKey())
	if k.isShared() {
		return t.renewShared(item)
	}
	old := t.state.instance(k)
	switch {
	case old == nil || old.pastGrace(t.state.services[k.ServiceKey()].policy.grace(), t.entry.Time) || old.LeaseID != "" && !old.alive():
		return &recordv1.Result{Code: recordv1.Result_CODE_NOT_FOUND}
	case old.LeaseID != "":
		return &recordv1.Result{Code: recordv1.Result_CODE_SHARED_LEASE}
	}
	if !old.heldBy(item.GetProof()) {
		return &recordv1.Result{Code: recordv1.Result_CODE_WRONG_TOKEN}
	}
	next := *old
	next.ExpiredAt = 0
	next.settle(old, old.unkept(), t.entry.Time)
	next.LastHeartbeat, next.Lease = t.entry.Time, t.entry.Index
	if ttl := item.GetLeaseTtlMs(); ttl > 0 {
		next.LeaseTTL = time.Duration(ttl) * time.Millisecond
	}
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: t.put(&next, old), GrantedMs: t.granted(&next)}
}

// granted is what a lease is given beyond its TTL, in ms; 0 = nothing.
func (t *step) granted(i *Instance) int64 {
	if i.LeaseID != "" {
		return 0 // it is the shared lease that is given something
	}
	return granted(i.LeaseTTL, t.state.told.stretch).Milliseconds()
}

func (t *step) expire(item *recordv1.ExpireItem, current bool) *recordv1.Result {
	k := keyOfRecord(item.GetKey())
	if k.isShared() {
		return t.expireShared(item, current)
	}
	old := t.state.instance(k)
	if !current || old == nil || !old.alive() || old.LeaseID != "" || uint64(old.Lease) != item.GetLease() && !mutant("expiry_of_any_generation") {
		return &recordv1.Result{Code: recordv1.Result_CODE_OK}
	}
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: t.lapseLease(old)}
}

// lapseLease is an instance whose lease has run out.
func (t *step) lapseLease(old *Instance) (visible bool) {
	next := *old
	next.ExpiredAt = t.entry.Time
	next.settle(old, old.unkept(), t.entry.Time)
	return t.put(&next, old)
}

// reap does what has come due in a service by the time of the entry.
func (t *step) reap(key *recordv1.ServiceKey) *recordv1.Result {
	k := ServiceKey{Namespace: key.GetNamespace(), Service: key.GetService()}
	d := t.draft(k)
	if d == nil {
		return &recordv1.Result{Code: recordv1.Result_CODE_NOT_FOUND}
	}
	before := len(t.changes)
	svc := t.state.services[k]
	for _, i := range svc.reapable(d.record.baseline, t.entry.Time) {
		t.remove(i)
	}
	for _, i := range svc.lapsed(t.entry.Time) {
		t.lapse(i)
	}
	if svc.record.emptiedAt != 0 && t.entry.Time-svc.record.emptiedAt >= serviceAfterlife.Milliseconds() {
		t.removeService(d)
	}
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: d.tell || len(t.changes) > before}
}

// halve brings the baseline down for every hour that it was not reached. It is
// done whenever the service is touched, by the count from before: so a baseline
// that nobody needed to look at for hours is right when something expires.
func (r *serviceRecord) halve(standing int, now int64) (halved bool) {
	for r.fellAt != 0 && r.baseline > standing && now-r.fellAt >= baselineHalving.Milliseconds() {
		r.baseline = max(r.baseline/2, standing)
		r.fellAt += baselineHalving.Milliseconds()
		halved = true
	}
	if r.baseline <= standing {
		r.fellAt = 0
	}
	return halved
}

// settle follows the count of standing instances.
func (r *serviceRecord) settle(standing, instances int, now int64) {
	switch {
	case standing >= r.baseline:
		r.baseline, r.fellAt = standing, 0
	case r.fellAt == 0:
		r.fellAt = now
	}
	switch {
	case instances > 0:
		r.emptiedAt = 0
	case r.emptiedAt == 0:
		r.emptiedAt = now
	}
}

// reapable are the instances that have been drained, and the expired ones that
// can neither be revived nor are kept in view.
func (svc *serviceState) reapable(baseline int, now int64) []*Instance {
	if svc.tally.ended == 0 && svc.tally.timed == 0 {
		return nil
	}
	own := svc.own()
	kept := placeholders(own, baseline-svc.tally.standing())
	var out []*Instance
	for _, i := range own {
		if _, keep := kept[i]; !keep && i.pastGrace(svc.policy.grace(), now) || i.drained(now) {
			out = append(out, i)
		}
	}
	return out
}

// lapsed are the instances with a condition whose time is over.
func (svc *serviceState) lapsed(now int64) []*Instance {
	if svc.tally.timed == 0 {
		return nil
	}
	var out []*Instance
	for _, i := range svc.own() {
		if slices.ContainsFunc(i.Conditions(), func(c Condition) bool { return c.over(now) }) {
			out = append(out, i)
		}
	}
	return out
}

// lapse drops the conditions of an instance whose time is over.
func (t *step) lapse(old *Instance) {
	next := *old
	next.settle(old, old.without(func(c Condition) bool { return c.over(t.entry.Time) }), t.entry.Time)
	t.put(&next, old)
}

// pastGrace says that the instance expired too long ago to be revived.
func (i *Instance) pastGrace(grace, now int64) bool {
	return !i.alive() && now-i.ExpiredAt >= grace
}

// put stores an instance in place of the old one, nil if there is none, and says whether a reader can tell.
func (t *step) put(next, old *Instance) (visible bool) {
	visible = old == nil || !next.sameAs(old)
	if old != nil {
		next.Revision, next.Counter = old.Revision, old.Counter
	}
	if visible {
		next.Revision = t.entry.Index
		next.Counter++
		t.draft(next.ServiceKey()).visible = true
	}
	encoded := next.encode()
	t.batch.Set(next.storedAt(), encoded)
	c := change{service: next.ServiceKey(), op: opPut, instance: next, previous: old, encoded: encoded, silent: !visible}
	c.handedOut, c.wasHandedOut = next.Protected, old != nil && old.Protected
	t.change(c)
	return visible
}

func (t *step) remove(old *Instance) {
	d := t.draft(old.ServiceKey())
	d.visible = true
	if old.Imported == nil {
		d.keepOverride(old)
	}
	t.batch.Delete(old.storedAt())
	t.change(change{service: old.ServiceKey(), op: opDelete, previous: old, wasHandedOut: old.Protected})
}

func (t *step) removeService(d *draft) {
	d.gone = true
	t.batch.Delete(storage.ServiceKey(d.key.Namespace, d.key.Service))
	t.change(change{service: d.key, op: opServiceDelete})
}

// draft is the record of a service that this entry changes; nil when there is no such service.
func (t *step) draft(k ServiceKey) *draft {
	for _, d := range slices.Backward(t.services) { // most often the last
		if d.key == k {
			if d.gone {
				return nil
			}
			return d
		}
	}
	svc := t.state.services[k]
	if svc == nil {
		return nil
	}
	d := &draft{key: svc.key, record: svc.record, handed: svc.handedOut(&svc.record)}
	if d.record.halve(svc.tally.standing(), t.entry.Time) && svc.tally.ended > 0 {
		d.visible, d.tell = true, true // fewer placeholders may be in view
	}
	t.services = append(t.services, d)
	return d
}

func (t *step) change(c change) {
	c.revision = t.entry.Index
	t.state.apply(&c)
	t.changes = append(t.changes, c)
}

// finish writes the records of the services that the entry has touched.
func (t *step) finish() {
	for _, d := range t.services {
		if d.gone {
			continue
		}
		svc := t.state.services[d.key]
		d.record.settle(svc.tally.standing(), len(svc.instances), t.entry.Time)
		if d.record.protect(svc, t.entry.Time) {
			d.visible, d.tell = true, true
		}
		if d.visible {
			d.record.revision = t.entry.Index
		}
		t.handOut(d, svc.handedOut(&d.record))
		if d.record.equal(&svc.record) {
			continue
		}
		t.change(change{service: d.key, op: opServicePut, record: d.record, silent: !d.tell})
		t.batch.Set(storage.ServiceKey(d.key.Namespace, d.key.Service), d.record.encode())
	}
}

func (r *serviceRecord) equal(o *serviceRecord) bool {
	return r.created == o.created && r.revision == o.revision && slices.Equal(r.endpoints, o.endpoints) && slices.Equal(r.imported, o.imported) &&
		r.baseline == o.baseline && r.fellAt == o.fellAt && r.emptiedAt == o.emptiedAt && slices.Equal(r.overrides, o.overrides) && r.protectedSince == o.protectedSince &&
		slices.Equal(r.protections, o.protections)
}
