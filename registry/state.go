package registry

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// A state is everything the registry knows at one revision, as an index of
// immutable instances. A machine has two: the one that Apply works on, and the
// published one, which follows by the same changes. So Apply sees its own
// earlier entries before anybody else does, and a reader never waits for a disk.
// The second copy costs some sixteen bytes an instance.
type state struct {
	services map[ServiceKey]*serviceState
	order    []*serviceState // sorted by key
	index    *index          // of the published state; nil in the other
	told     *toldLeases
	leases   map[string]*leaseState // that instances share, by id
	tally    tally                  // of the instances in all services

	policies  documents[ServiceKey, Policy]
	upstreams documents[ServiceKey, Upstreams]
	documents documents[string, Namespace]
	access    accessState
	holdings  map[string]*holding // of the namespaces that have services

	imports map[RegionKey]*imports // the copies of other regions

	history    *history                     // of the state that Apply works on; nil in the other
	protection *ExpiryPause                 // of the whole cluster; nil = none; never changed in place
	paused     map[ServiceKey]*serviceState // the services that have protections
}

// A serviceState is one service within a state.
type serviceState struct {
	key       ServiceKey
	record    serviceRecord
	policy    *Policy // nil = none
	holding   *holding
	placed    bool        // it is one of the services that the holding counts
	instances []*Instance // sorted by id; changed in place, unless shared
	shared    atomic.Bool // a reader has them: the next change is made in a copy
	blocks    []*block    // for the index; sorted by where they begin
	tally     tally       // of those that are registered here
	abroad    tally       // of those of other regions

	building sync.Mutex              // held while a reader builds the view, so that it is built once
	view     atomic.Pointer[Service] // nil after a change, until somebody reads
}

// A serviceRecord is what is known of a service beside its instances. It is
// stored with every visible change, so that a restarted member gives the same
// revisions as one that never stopped.
type serviceRecord struct {
	created   Revision
	revision  Revision          // of the last visible change
	endpoints []ServiceEndpoint // of registrations; never changed in place
	imported  []ServiceEndpoint // of instances of other regions, the same
	baseline  int               // how many instances it is believed to need
	fellAt    int64             // Unix ms: since when the standing ones are fewer than the baseline, or when it was last halved
	emptiedAt int64             // Unix ms: when the last instance went; 0 while there are any
	overrides []KeptOverride    // of instances that are gone; sorted by id, never changed in place

	protectedSince int64         // Unix ms: since when all instances are handed out; 0 = they are not
	protections    []ExpiryPause // of it and of its zones; sorted by scope, never changed in place
}

// A change is one step from a state to the next.
type change struct {
	service  ServiceKey
	revision Revision
	op       changeOp
	silent   bool      // no reader can tell: no event
	instance *Instance // opPut, opHandOut
	previous *Instance // opPut, opDelete, opHandOut
	encoded  []byte    // instance, where that is known
	record   serviceRecord

	handedOut, wasHandedOut bool // as in Event

	checkpoint *checkpoint          // opCheckpoint
	lease      *SharedLease         // opLeasePut, opLeaseDelete
	policy     *Document[Policy]    // opPolicyPut; nil = it is forgotten
	upstreams  *Document[Upstreams] // opUpstreamsPut; nil = it is forgotten
	namespace  *Document[Namespace] // opNamespacePut of service.Namespace; nil = it is forgotten
	protection *ExpiryPause         // opProtection; nil = it is over
	region     *Region              // opRegionPut, opRegionDelete
	access     accessChange         // opRolePut, opBindingPut, opTokenPut
}

type changeOp uint8

const (
	opPut changeOp = iota
	opDelete
	opServicePut
	opServiceDelete
	opCheckpoint
	opLeasePut
	opLeaseDelete
	opPolicyPut
	opNamespacePut
	opUpstreamsPut
	opProtection // of the whole cluster
	opRolePut
	opBindingPut
	opTokenPut
	opRegionPut    // how far the copy of a region is
	opRegionDelete // nothing is known of it any more; it has no instances
	opHandOut      // nothing of the instance has changed but that its service's protection gives it to callers, or no longer does
)

// newState is one that Apply works on.
func newState() *state {
	return &state{
		services: make(map[ServiceKey]*serviceState), leases: make(map[string]*leaseState), holdings: make(map[string]*holding),
		told: newTold(), policies: make(documents[ServiceKey, Policy]), upstreams: make(documents[ServiceKey, Upstreams]), documents: make(documents[string, Namespace]),
		imports: make(map[RegionKey]*imports), access: newAccessState(),
	}
}

// newPublishedState is one that can be queried.
func newPublishedState() *state {
	s := newState()
	s.index = newIndex(s)
	s.told.free = nil
	return s
}

// apply makes one step. A step that does not fit means that two states that
// must be equal are not.
func (s *state) apply(c *change) {
	switch c.op {
	case opPut:
		s.put(s.mustHave(c.service), c.instance)
	case opDelete:
		s.remove(s.mustHave(c.service), c.previous.ID)
	case opServicePut:
		s.putService(c.service, c.record)
	case opServiceDelete:
		s.removeService(c.service)
	case opCheckpoint:
		s.told.apply(c.checkpoint)
	case opLeasePut:
		s.putLease(c.lease)
	case opLeaseDelete:
		s.removeLease(c.lease.ID)
	case opPolicyPut:
		s.putPolicy(c.service, c.policy)
	case opUpstreamsPut:
		s.upstreams.put(c.service, c.upstreams)
	case opNamespacePut:
		s.documents.put(c.service.Namespace, c.namespace)
	case opProtection:
		s.protection = c.protection
	case opRolePut, opBindingPut, opTokenPut:
		s.access.apply(c)
	case opRegionPut:
		s.importsOf(c.region.Key).region = *c.region
	case opRegionDelete:
		delete(s.imports, c.region.Key)
	}
}

func (s *state) mustHave(k ServiceKey) *serviceState {
	svc := s.services[k]
	if svc == nil {
		panic("registry: change of service " + k.Service + " in namespace " + k.Namespace + ", which this state does not have")
	}
	return svc
}

// share gives the instances to a reader, who holds the lock and keeps them beyond.
func (svc *serviceState) share() []*Instance {
	if !svc.shared.Load() { // a store takes the line away from other readers
		svc.shared.Store(true)
	}
	return slices.Clip(svc.instances)
}

// change readies the instances for a change.
func (svc *serviceState) change() {
	svc.view.Store(nil)
	if svc.shared.Load() {
		svc.instances = slices.Clone(svc.instances)
		svc.shared.Store(false)
	}
}

func (s *state) put(svc *serviceState, i *Instance) {
	svc.change()
	var old *Instance
	at, found := searchID(svc.instances, i.ID)
	if found {
		old = svc.instances[at]
		s.count(svc, old, -1)
		svc.instances[at] = i
	} else {
		svc.instances = slices.Insert(svc.instances, at, i)
	}
	s.count(svc, i, 1)
	s.told.put(i)
	svc.place()
	s.follow(i, old)
	if s.index != nil {
		s.index.put(svc, i, old)
	}
}

func (s *state) remove(svc *serviceState, id string) {
	svc.change()
	at, found := searchID(svc.instances, id)
	if !found {
		panic("registry: removal of instance " + id + " of service " + svc.key.Service + ", which this state does not have")
	}
	old := svc.instances[at]
	s.count(svc, old, -1)
	s.told.remove(old)
	svc.instances = slices.Delete(svc.instances, at, at+1)
	svc.place()
	s.follow(nil, old)
	if s.index != nil {
		s.index.remove(svc, old)
	}
}

func (s *state) putPolicy(k ServiceKey, d *Document[Policy]) {
	s.policies.put(k, d)
	if svc := s.services[k]; svc != nil {
		svc.view.Store(nil)
		s.ageBy(svc, d.Content())
		svc.policy = d.Content()
	}
}

func (s *state) count(svc *serviceState, i *Instance, by int32) {
	if i.Imported != nil {
		svc.abroad.count(i, by)
		s.importsOf(i.regionKey()).count(svc, i, int(by))
		return
	}
	if i.alive() {
		svc.holding.alive += int(by)
	}
	svc.tally.count(i, by)
	s.tally.count(i, by)
}

// A tally counts instances by what has to be known of all of them at once.
type tally struct {
	status     StatusCounts
	instances  int32
	ended      int32 // their lease has run out
	timed      int32 // a condition of theirs ends by itself
	overridden int32 // an operator has a word on them
	checked    int32 // they have checks
	kept       int32 // they have expired but for self-preservation
	reported   int32 // those who call them have a word on them
	accused    int32 // they are critical, and that is such a word
}

func (t *tally) count(i *Instance, by int32) {
	t.status[i.Status] += by
	t.instances += by
	if !i.alive() {
		t.ended += by
	}
	if i.Health == nil {
		return
	}
	if i.timed() {
		t.timed += by
	}
	if _, overridden := i.condition(SourceOperator, ""); overridden {
		t.overridden += by
	}
	if len(i.Checks()) > 0 {
		t.checked += by
	}
	if i.kept() {
		t.kept += by
	}
	if _, reported := i.condition(SourceReports, ""); reported {
		t.reported += by
		if i.accused() {
			t.accused += by
		}
	}
}

// standing are the instances that the service has, of whatever health.
func (t *tally) standing() int {
	return int(t.instances - t.status[StatusExpired] - t.status[StatusDisabled])
}

func (s *state) putService(k ServiceKey, record serviceRecord) {
	if svc := s.services[k]; svc != nil {
		svc.view.Store(nil)
		before := len(svc.record.protections)
		svc.setRecord(record)
		s.noteProtected(svc, before)
		return
	}
	svc := &serviceState{key: k, policy: s.policies[k].Content(), holding: s.holdings[k.Namespace]}
	if svc.holding == nil {
		svc.holding = &holding{}
		s.holdings[k.Namespace] = svc.holding
	}
	svc.holding.known++
	svc.setRecord(record)
	s.services[k] = svc
	s.order = slices.Insert(s.order, s.search(k), svc)
	s.noteProtected(svc, 0)
	if s.index != nil {
		s.index.addService(svc)
	}
}

func (svc *serviceState) setRecord(record serviceRecord) {
	if was, is := svc.protected(), record.protectedSince != 0; is && !was {
		svc.holding.protected++
	} else if was && !is {
		svc.holding.protected--
	}
	svc.record = record
	svc.place()
}

// place takes a place in the namespace's quota, or gives it back. A service takes one while
// instances of it are registered here, and after that until it is forgotten, unless it
// goes on elsewhere: then it is not for us to end, and never forgotten.
func (svc *serviceState) place() {
	was := svc.placed
	svc.placed = svc.tally.instances > 0 || len(svc.record.endpoints) > 0 && svc.abroad.instances == 0
	if svc.placed && !was {
		svc.holding.services++
	} else if was && !svc.placed {
		svc.holding.services--
	}
}

func (s *state) removeService(k ServiceKey) {
	svc := s.mustHave(k)
	if len(svc.instances) > 0 {
		panic("registry: removal of service " + k.Service + ", which still has instances")
	}
	delete(s.services, k)
	delete(s.paused, k)
	svc.setRecord(serviceRecord{})
	if svc.holding.known--; svc.holding.known == 0 {
		delete(s.holdings, k.Namespace)
	}
	at := s.search(k)
	s.order = slices.Delete(s.order, at, at+1)
	if s.index != nil {
		s.index.removeService(svc)
	}
}

// search gives the place of a service, or where it would be.
func (s *state) search(k ServiceKey) int {
	at, _ := searchService(s.order, k)
	return at
}

func (s *state) instance(k InstanceKey) *Instance {
	svc := s.services[k.ServiceKey()]
	if svc == nil {
		return nil
	}
	at, found := searchID(svc.instances, k.ID)
	if !found {
		return nil
	}
	return svc.instances[at]
}

// snapshot is the service for readers. The caller keeps changes out meanwhile.
func (svc *serviceState) snapshot() *Service {
	if v := svc.view.Load(); v != nil {
		return v
	}
	svc.building.Lock()
	defer svc.building.Unlock()
	if v := svc.view.Load(); v != nil {
		return v
	}
	v := &Service{
		Key: svc.key, Created: svc.record.created, Revision: svc.record.revision,
		Endpoints: svc.policy.endpoints(svc.record.names()), Overrides: svc.record.overrides, Protections: svc.record.protections, Policy: svc.policy, Statuses: svc.tally.status.and(svc.abroad.status), Instances: svc.share(),
	}
	v.Shown = shown(v.Instances, svc.tally.standing(), svc.record.baseline)
	v.Protected = svc.protection()
	svc.view.Store(v)
	return v
}

// searchID finds an instance, or its place, in a slice sorted by id.
func searchID(instances []*Instance, id string) (int, bool) {
	return slices.BinarySearchFunc(instances, id, func(i *Instance, id string) int { return cmp.Compare(i.ID, id) })
}

// prefixed is the services of a namespace whose names begin so, sorted.
func (s *state) prefixed(namespace, prefix string) []*serviceState {
	return prefixed(s.order, namespace, prefix)
}

// prefixed is the part of a sorted list of services that a prefix of a namespace's names cuts out.
func prefixed(sorted []*serviceState, namespace, prefix string) []*serviceState {
	from, _ := searchService(sorted, ServiceKey{Namespace: namespace, Service: prefix})
	rest := sorted[from:]
	to, _ := slices.BinarySearchFunc(rest, true, func(svc *serviceState, _ bool) int {
		if svc.key.Namespace == namespace && strings.HasPrefix(svc.key.Service, prefix) {
			return -1
		}
		return 1
	})
	return rest[:to]
}

// bytes is roughly what all instances take.
func (s *state) bytes() uint64 {
	n := 0
	for _, svc := range s.order {
		for _, i := range svc.instances {
			n += i.bytes()
		}
	}
	return uint64(n)
}
