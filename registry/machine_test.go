package registry

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/encoding/protowire"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// openEmpty is a machine and its engine, both empty and in memory.
func openEmpty(tb testing.TB) (*storage.Engine, *Machine) {
	tb.Helper()
	engine, err := storage.OpenEngine(storage.EngineOptions{FS: vfs.NewMem(), Dir: "state"})
	if err != nil {
		tb.Fatalf("open the engine: %v", err)
	}
	tb.Cleanup(func() {
		if err := engine.Close(); err != nil {
			tb.Errorf("close the engine: %v", err)
		}
	})
	return engine, mustOpen(tb, engine)
}

func mustOpen(tb testing.TB, engine *storage.Engine) *Machine {
	tb.Helper()
	machine, err := OpenMachine(MachineConfig{Engine: engine, Region: "here"})
	if err != nil {
		tb.Fatalf("open the machine: %v", err)
	}
	return machine
}

// registration is the command that registers an instance of an orders service.
func registration(id string, port int32) []byte {
	normal, err := reg("prod", "orders", id, "10.0.0.1", port).normalize()
	if err != nil {
		panic(err)
	}
	return registerCommand(normal)
}

// TestPublishShowsAllAtOnce shows that nothing of what was applied is seen before
// Publish, not even what the engine has, and all of it in one step afterwards.
func TestPublishShowsAllAtOnce(t *testing.T) {
	engine, m := openEmpty(t)
	k := ServiceKey{"prod", "orders"}
	watch := m.Watch(0)
	for n := range Revision(3) {
		applyEntry(t, engine, m, Entry{Index: n + 1, Term: 1, Time: 1000, Data: registration(fmt.Sprint(n), 80)})
	}
	mustEqual(t, "the revision before", m.Revision(), 0)
	mustEqual(t, "the number of services before", len(m.ServiceKeys("")), 0)
	if _, more, err := watch.Poll(); more || err != nil {
		t.Fatalf("a watcher is told something before: %v, %v", more, err)
	}

	m.Publish(5) // the log went on with entries that are not the registry's
	mustEqual(t, "the revision", m.Revision(), 5)
	mustEqualSlices(t, "the instances", ids(m.Service(k).Instances), []string{"0", "1", "2"})
	mustEqual(t, "the revision of the service", m.Service(k).Revision, 3)
	batch, more, err := watch.Poll()
	if !more || err != nil {
		t.Fatalf("the watcher is not told: %v, %v", more, err)
	}
	mustEqual(t, "the revision told", batch.Revision, 5)
	mustEqual(t, "the number of events", len(batch.Events), 4) // and the service
}

// TestWhatAWatcherIsToldIsThere shows that the state is never behind its events:
// whoever looks after an event finds what it told of.
func TestWhatAWatcherIsToldIsThere(t *testing.T) {
	const revisions = 3000
	engine, m := openEmpty(t)
	k := ServiceKey{"prod", "orders"}
	ended := make(chan error)
	go func() {
		for watch := m.Watch(0); ; {
			batch, err := watch.Next(context.Background())
			if seen := m.Service(k); err == nil && (m.Revision() < batch.Revision || seen.Revision < batch.Revision) {
				err = fmt.Errorf("told of revision %d, found %d and the service at %d", batch.Revision, m.Revision(), seen.Revision)
			}
			if err != nil || batch.Revision == revisions {
				ended <- err
				return
			}
		}
	}()
	for n := range Revision(revisions) {
		applyEntry(t, engine, m, Entry{Index: n + 1, Term: 1, Time: 1000, Data: registration("a", int32(n%2)+1)})
		m.Publish(n + 1)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// TestAServiceIsBuiltOncePerChange shows that readers share what they read, and
// that what they have read stays as it was.
func TestAServiceIsBuiltOncePerChange(t *testing.T) {
	m := newMember(t, newManualClock())
	m.register(reg("prod", "orders", "b", "10.0.0.1", 80))
	m.register(reg("prod", "other", "a", "10.0.0.1", 80))
	k := ServiceKey{"prod", "orders"}
	before := m.machine.Service(k)
	m.register(reg("prod", "other", "b", "10.0.0.1", 80))
	if m.machine.Service(k) != before {
		t.Fatal("a change of another service has the service built anew")
	}
	m.register(reg("prod", "orders", "a", "10.0.0.1", 80))
	mustEqualSlices(t, "the instances read before", ids(before.Instances), []string{"b"})
	mustEqualSlices(t, "the instances", ids(m.machine.Service(k).Instances), []string{"a", "b"})
}

// TestWhatStopsAMember shows the entries that no member may skip or apply twice,
// and that they leave nothing behind in its state.
func TestWhatStopsAMember(t *testing.T) {
	encoded := func(c *recordv1.Command) []byte { return encode(c) }
	cases := map[string]struct {
		index Revision
		data  []byte
		says  string
	}{
		"an entry that was applied": {7, registration("b", 80), "apply of entry 7 after 7"},
		"an older one":              {3, nil, "apply of entry 3 after 7"},
		"a kind of the future":      {8, protowire.AppendBytes(protowire.AppendTag(encoded(&recordv1.Command{Format: 1}), 99, protowire.BytesType), []byte("x")), "of a kind that this version does not know"},
		"no kind":                   {8, encoded(&recordv1.Command{Format: 1}), "of a kind that this version does not know"},
		"a format of the future":    {8, encoded(&recordv1.Command{Format: 2, Kind: &recordv1.Command_Reap{Reap: &recordv1.Reap{}}}), "has format 2, this version reads up to 1"},
		"no format":                 {8, encoded(&recordv1.Command{Kind: &recordv1.Command_Reap{Reap: &recordv1.Reap{}}}), "has no format"},
		"a check of the future": {8, encoded(&recordv1.Command{Format: 1, Kind: &recordv1.Command_Register{Register: &recordv1.Register{Items: []*recordv1.RegisterItem{{
			Key: &recordv1.InstanceKey{Namespace: "prod", Service: "orders", Id: "b"}, Spec: &recordv1.InstanceSpec{Checks: []*recordv1.Check{{Name: "web", Kind: "quic", Initial: recordv1.InstanceRecord_STATUS_PASSING}}},
		}}}}}), "entry 8 of term 2 has a check of a kind that this version does not know: run a newer version"},
		"no command at all": {8, []byte("\xff\xff"), "entry 8 of term 2 cannot be read"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			engine, m := openEmpty(t)
			applyEntry(t, engine, m, Entry{Index: 7, Term: 1, Time: 1000, Data: registration("a", 80)})
			m.Publish(7)
			b := engine.NewBatch()
			size, before := b.Len(), dumpState(m.working)
			mustPanic(t, c.says, func() { m.Apply(b, Entry{Index: c.index, Term: 2, Time: 1000, Data: c.data}) })
			mustEqual(t, "the size of the batch", b.Len(), size)
			mustEqual(t, "the working state", dumpState(m.working), before)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
	_, m := openEmpty(t)
	m.Publish(9)
	mustPanic(t, "publish of revision 8, but 9 is applied", func() { m.Publish(8) })
}

func mustPanic(t *testing.T, says string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), says) {
			t.Fatalf("it panics with %v, want %q", r, says)
		}
	}()
	f()
}

// TestAnEntryWithoutDataMovesTheRevisionOnly shows what a new leader's first entry does.
func TestAnEntryWithoutDataMovesTheRevisionOnly(t *testing.T) {
	m := newMember(t, newManualClock())
	m.register(reg("prod", "orders", "a", "10.0.0.1", 80))
	before, watch := m.dump(), m.machine.Watch(m.machine.Revision())
	m.lead()
	mustEqual(t, "the state", m.dump(), before)
	batch, more, err := watch.Poll()
	if !more || err != nil {
		t.Fatalf("a watcher is not told of the revision: %v, %v", more, err)
	}
	mustEqual(t, "the revision told", batch.Revision, m.index)
	mustEqual(t, "the number of events", len(batch.Events), 0)
}

// TestARestartedMemberResumes shows that after a restart a watcher goes on from
// wherever it was, and that one of before there was a history is sent back to the state.
func TestARestartedMemberResumes(t *testing.T) {
	m := newMember(t, newManualClock())
	m.register(reg("prod", "orders", "a", "10.0.0.1", 80))
	again := mustOpen(t, m.engine)
	mustEqual(t, "the revision", again.Revision(), m.index)
	heads, sizes := told(t, again.Watch(m.index-1))
	mustEqualSlices(t, "the revisions told", heads, []Revision{m.index})
	mustEqualSlices(t, "the number of events", sizes, []int{2})
	if _, more, err := again.Watch(m.index).Poll(); more || err != nil {
		t.Fatalf("a watcher of the newest revision: %v, %v", more, err)
	}

	b := m.engine.NewBatch()
	b.Delete([]byte(storage.HistoryKey))
	b.Delete(storage.EventKey(uint64(m.index)))
	if err := m.engine.Apply(b, storage.Position{Index: uint64(m.index), Term: 1}); err != nil {
		t.Fatal(err)
	}
	old := mustOpen(t, m.engine)
	mustBeCompacted(t, old.Watch(m.index-1))
	applyEntry(t, m.engine, old, Entry{Index: m.index + 1, Term: 1, Time: m.latest, Data: registration("b", 80)})
	old.Publish(m.index + 1)
	for _, member := range []*Machine{old, mustOpen(t, m.engine)} {
		mustBeCompacted(t, member.Watch(m.index-1))
		heads, _ := told(t, member.Watch(m.index))
		mustEqualSlices(t, "the revisions told after the first that is kept", heads, []Revision{m.index + 1})
	}
}

// TestDamagedRecordsAreRefused shows that a member does not start with a state that it cannot read.
func TestDamagedRecordsAreRefused(t *testing.T) {
	passing := func(format uint32, status recordv1.InstanceRecord_Status) []byte {
		return encode(&recordv1.InstanceRecord{Format: format, Status: status, Spec: &recordv1.InstanceSpec{}})
	}
	said := func(source recordv1.Condition_Source, status recordv1.InstanceRecord_Status) []byte {
		c := &recordv1.Condition{Source: source, Status: status}
		return encode(&recordv1.InstanceRecord{Format: 1, Status: 1, Spec: &recordv1.InstanceSpec{}, Conditions: []*recordv1.Condition{c}})
	}
	service := encode(&recordv1.ServiceRecord{Format: 1})
	instanceKey, serviceKey := storage.InstanceKey("prod", "orders", "a"), storage.ServiceKey("prod", "orders")
	cases := map[string]struct {
		key, value []byte
		says       string
	}{
		"garbage":                        {instanceKey, []byte("\xff"), `decode instance "a" of service "orders" in namespace "prod"`},
		"an empty value":                 {instanceKey, nil, "has no format"},
		"a format of the future":         {instanceKey, passing(2, recordv1.InstanceRecord_STATUS_PASSING), "has format 2, this version reads up to 1"},
		"a status of the future":         {instanceKey, passing(1, recordv1.InstanceRecord_Status(9)), "has status 9, which this version does not know"},
		"a source of the future":         {instanceKey, said(recordv1.Condition_Source(7), recordv1.InstanceRecord_STATUS_CRITICAL), "has a condition of a source that this version does not know"},
		"a word of the future":           {instanceKey, said(recordv1.Condition_SOURCE_CHECK, recordv1.InstanceRecord_Status(9)), "has a condition with a status that this version does not know"},
		"no status":                      {instanceKey, passing(1, recordv1.InstanceRecord_STATUS_UNSPECIFIED), "has status 0"},
		"an instance without a service":  {storage.InstanceKey("prod", "other", "a"), passing(1, recordv1.InstanceRecord_STATUS_PASSING), `service "other" in namespace "prod", which is not there`},
		"a key with a part too many":     {storage.InstanceKey("prod", "orders", "a/b"), passing(1, recordv1.InstanceRecord_STATUS_PASSING), "has 4 parts after its prefix, not 3"},
		"a service that is garbage":      {serviceKey, []byte("\xff"), `decode service "orders" in namespace "prod"`},
		"a service without a format":     {serviceKey, nil, "has no format"},
		"a service of a future format":   {serviceKey, encode(&recordv1.ServiceRecord{Format: 9}), "has format 9"},
		"changes that are garbage":       {storage.EventKey(5), []byte("\xff"), "decode the changes of revision 5"},
		"changes without a format":       {storage.EventKey(5), nil, "the changes of revision 5 has no format"},
		"changes of no revision":         {[]byte(storage.EventPrefix + "000x"), nil, "have no revision"},
		"a floor of the future":          {[]byte(storage.HistoryKey), encode(&recordv1.HistoryRecord{Format: 9}), "the floor of the history has format 9"},
		"a service's key that is no key": {[]byte(storage.ServicePrefix + "prod"), service, "has 1 parts after its prefix, not 2"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			engine, _ := openEmpty(t)
			b := engine.NewBatch()
			b.Set(serviceKey, service)
			b.Set(c.key, c.value)
			if err := engine.Apply(b, storage.Position{Index: 5, Term: 1}); err != nil {
				t.Fatal(err)
			}
			_, err := OpenMachine(MachineConfig{Engine: engine})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("open: %v, want %q", err, c.says)
			}
		})
	}
}

// TestRecordsKeepEverything shows that what is stored and read back is what was there.
func TestRecordsKeepEverything(t *testing.T) {
	d := newReader("here")
	i := &Instance{
		Origin: &Origin{Namespace: "prod", Service: "a.b.c.d.e", Group: "g", Zone: "z", Region: "here", Version: "v"}, ID: "i",
		Labels: Pairs{{"k", "1"}}, Metadata: Pairs{{"m", "2"}},
		Endpoints: []Endpoint{{Name: "n", Protocol: "http", Host: "h", Port: 1, Path: "/p", Weight: 2}}, LeaseTTL: 1500e6,
		RegisteredAt: 1, LastHeartbeat: 2, Status: StatusExpired, ExpiredAt: 3, Revision: 4, Counter: 5, Lease: 6,
		Health: &Health{Since: 7, Conditions: []Condition{{Source: SourceCheck, Name: "web", Status: StatusCritical, Since: 8, Until: 9, Reason: "refused", By: "2"}}},
	}
	again, err := d.decodeInstance(i.Key(), i.encode())
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "the instance", fmt.Sprintf("%+v", *again), fmt.Sprintf("%+v", *i))
	r := serviceRecord{created: 1, revision: 2, endpoints: []ServiceEndpoint{{"n", "http"}}, baseline: 3, fellAt: 4, emptiedAt: 5,
		overrides: []KeptOverride{{ID: "gone", Condition: Condition{Source: SourceOperator, Status: StatusDisabled, Since: 6, Reason: "repair", By: "ann"}}}}
	back, err := d.decodeService(i.ServiceKey(), r.encode())
	if err != nil {
		t.Fatal(err)
	}
	if !back.equal(&r) {
		t.Fatalf("the service is read back as %+v, want %+v", back, r)
	}
}
