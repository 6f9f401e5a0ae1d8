package registry

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/internal/corpus"
	"github.com/stellmap/stellmap/storage"
)

// A command that cannot be read stops the member with the entry's numbers; one
// that can is described, and no command does anything else.
func FuzzCommand(f *testing.F) {
	key := &recordv1.InstanceKey{Namespace: "ns", Service: "svc", Id: "a"}
	for _, c := range []*recordv1.Command{
		{Format: formatMax, Kind: &recordv1.Command_Register{Register: &recordv1.Register{Items: []*recordv1.RegisterItem{{Key: key, Spec: &recordv1.InstanceSpec{LeaseTtlMs: 1000}}}}}},
		{Format: formatMax, Kind: &recordv1.Command_Deregister{Deregister: &recordv1.Deregister{Keys: []*recordv1.InstanceKey{key}}}},
		{Format: formatMax, Kind: &recordv1.Command_Renew{Renew: &recordv1.Renew{Items: []*recordv1.RenewItem{{Key: key}}}}},
		{Format: formatMax, Kind: &recordv1.Command_Checkpoint{Checkpoint: &recordv1.Checkpoint{Term: 3, AsOf: 6, ReignMs: 2000, Heard: []*recordv1.LeaseNumbers{{First: 64, Bits: []byte{5}}}}}},
		{Format: formatMax, Kind: &recordv1.Command_EditPolicy{EditPolicy: &recordv1.EditPolicy{Key: &recordv1.ServiceKey{Namespace: "ns", Service: "svc"}, Policy: &recordv1.Policy{}}}},
		{Format: formatMax, Kind: &recordv1.Command_EditNamespace{EditNamespace: &recordv1.EditNamespace{Namespace: "ns"}}},
		{Format: formatMax, Kind: &recordv1.Command_EditRole{EditRole: &recordv1.EditRole{Name: "ops", Role: &recordv1.Role{Rules: []*recordv1.Rule{{Verbs: []string{"read"}}}}}}},
		{Format: formatMax, Kind: &recordv1.Command_EditBinding{EditBinding: &recordv1.EditBinding{Name: "ops", Binding: &recordv1.Binding{Roles: []string{"ops"}}}}},
		{Format: formatMax, Kind: &recordv1.Command_GrantToken{GrantToken: &recordv1.GrantToken{Id: "a1", Token: &recordv1.AccessToken{Hash: make([]byte, 32)}, TtlMs: 1000}}},
		{Format: formatMax, Kind: &recordv1.Command_RevokeToken{RevokeToken: &recordv1.RevokeToken{Id: "a1"}}},
		{Format: formatMax, Kind: &recordv1.Command_JudgeReports{JudgeReports: &recordv1.JudgeReports{Term: 3, Items: []*recordv1.ReportVerdict{{Key: key, Lease: 7, Reporters: 3, Reason: "refused"}}}}},
		{Format: formatMax, Kind: &recordv1.Command_Protect{Protect: &recordv1.Protect{Term: 3, Items: []*recordv1.ProtectItem{{Kind: &recordv1.ProtectItem_Keep{Keep: &recordv1.ExpireItem{Key: key, Lease: 7}}}}}}},
		{Format: formatMax + 1},
		{},
	} {
		name := strings.TrimPrefix(fmt.Sprintf("%T", c.GetKind()), "*recordv1.Command_")
		if c.GetKind() == nil {
			name = fmt.Sprint("nothing of format ", c.GetFormat())
		}
		corpus.Add(f, name, encode(c))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		command, problem := tryCommand(b)
		described, err := DescribeCommand(b)
		if (err == nil) != (problem == "") {
			t.Fatalf("%x: read: %q, described: %v", b, problem, err)
		}
		if problem != "" {
			if !strings.HasPrefix(problem, "registry: entry 7 of term 3 ") {
				t.Errorf("%x: %s", b, problem)
			}
			return
		}
		if len(described) == 0 || bytes.ContainsRune(described, '\n') {
			t.Errorf("%x is described as %q", b, described)
		}
		again, problem := tryCommand(encode(command))
		if problem != "" || !bytes.Equal(encode(again), encode(command)) {
			t.Errorf("%x encodes to what is read as %v: %s", b, again, problem)
		}
	})
}

func tryCommand(b []byte) (command *recordv1.Command, problem string) {
	defer func() {
		if found := recover(); found != nil {
			problem = fmt.Sprint(found)
		}
	}()
	return decodeCommand(Entry{Index: 7, Term: 3, Data: b}), ""
}

// A record that is read is written as one that is read the same.
func FuzzRecord(f *testing.F) {
	corpus.Add(f, "an instance", (&Instance{Origin: &Origin{Namespace: "ns", Service: "svc"}, ID: "a", Status: StatusPassing, Revision: 9, Labels: Pairs{{Key: "k", Value: "v"}},
		Endpoints: []Endpoint{{Name: "http", Protocol: "http", Host: "10.0.0.1", Port: 80}}, Number: 7}).encode())
	corpus.Add(f, "an instance that is checked", (&Instance{Origin: &Origin{Namespace: "ns", Service: "svc"}, ID: "a", Status: StatusCritical, Revision: 9, Endpoints: []Endpoint{{Name: "http", Protocol: "http", Host: "10.0.0.1", Port: 80}}, Health: &Health{
		Checks:     []Check{{Name: "web", Kind: CheckHTTP, Endpoint: "http", Path: "/", IntervalSeconds: 5, TimeoutSeconds: 2, Rise: 2, Fall: 3, Initial: "passing"}},
		Conditions: []Condition{{Source: SourceCheck, Name: "web", Status: StatusCritical, Since: 1, Held: 2, Reason: "r"}},
	}}).encode())
	corpus.Add(f, "a service", (&serviceRecord{created: 1, revision: 2, endpoints: []ServiceEndpoint{{Name: "http", Protocol: "http"}}}).encode())
	corpus.Add(f, "what members have heard", encode(&recordv1.ToldRecord{Format: formatMax, Revision: 9, Heard: []uint32{0, 5}, HeardAt: []uint32{0, 1_800_000_000}}))
	corpus.Add(f, "the clock of what they have heard", encode(&recordv1.ToldClockRecord{Format: formatMax, Term: 3, ReignMs: 2000, LivedMs: 9000}))
	corpus.Add(f, "a policy", encodePolicies((*Document[Policy])(nil).with(Edit[Policy]{Version: 3, Revision: 9, By: "ann", Content: &Policy{GraceSeconds: new(int64(60))}})))
	corpus.Add(f, "upstreams", encodeUpstreams((*Document[Upstreams])(nil).with(Edit[Upstreams]{Version: 1, By: "ann", Content: &Upstreams{Wants: []string{}, May: []string{"*.prod"}}})))
	corpus.Add(f, "a namespace", encodeNamespaces((*Document[Namespace])(nil).with(Edit[Namespace]{Version: 1, Content: &Namespace{Labels: map[string]string{"k": "v"}, Quota: &Quota{}}})))
	zone := ExpiryPause{Scope: Scope{Kind: ScopeZone, Service: ServiceKey{"ns", "svc"}, Zone: "a"}, Since: 7, Limit: 1_000_000, Lapsed: 6, Leases: 10, Least: 5, Percent: 15}
	corpus.Add(f, "a service that is protected", (&serviceRecord{created: 1, revision: 2, protections: []ExpiryPause{zone}}).encode())
	corpus.Add(f, "a pause", (&ExpiryPause{Scope: Scope{Kind: ScopeCluster}, Since: 7, Limit: 1_000_000, Lapsed: 6, Leases: 10, Least: 5, Percent: 15}).encode())
	corpus.Add(f, "changes", recordOf([]Event{{Kind: EventInstancePut, Service: ServiceKey{"ns", "svc"}, HandedOut: true, Instance: &Instance{Origin: &nowhere, ID: "a", Status: StatusCritical}, Previous: &Instance{Origin: &nowhere, ID: "a", Status: StatusPassing}}}))
	corpus.Add(f, "nothing", []byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		k := InstanceKey{Namespace: "ns", Service: "svc", ID: "a"}
		r := newReader("region")
		if i, err := r.decodeInstance(k, b); err == nil {
			again, err := r.decodeInstance(k, i.encode())
			if err != nil || !bytes.Equal(again.encode(), i.encode()) {
				t.Errorf("instance %x is %+v and then %+v: %v", b, i, again, err)
			}
		}
		if s, err := r.decodeService(k.ServiceKey(), b); err == nil {
			again, err := r.decodeService(k.ServiceKey(), s.encode())
			if err != nil || !bytes.Equal(again.encode(), s.encode()) {
				t.Errorf("service %x is %+v and then %+v: %v", b, s, again, err)
			}
		}
		said := newTold()
		said.put(&Instance{Number: 1, Lease: 9})
		if err := loadToldRecord(0, b, []*toldLeases{said}); err == nil {
			again := newTold()
			again.put(&Instance{Number: 1, Lease: 9})
			if err := loadToldRecord(0, said.record(0, 9), []*toldLeases{again}); err != nil || !slices.Equal(again.leases, said.leases) || again.late != said.late {
				t.Errorf("checkpoints %x are %+v and then %+v: %v", b, said, again, err)
			}
		}
		if d, err := decodePolicies(k.ServiceKey(), b); err == nil {
			again, err := decodePolicies(k.ServiceKey(), encodePolicies(d))
			if err != nil || !bytes.Equal(encodePolicies(again), encodePolicies(d)) {
				t.Errorf("policy %x is %+v and then %+v: %v", b, d, again, err)
			}
		}
		if d, err := decodeUpstreams(k.ServiceKey(), b); err == nil {
			again, err := decodeUpstreams(k.ServiceKey(), encodeUpstreams(d))
			if err != nil || !bytes.Equal(encodeUpstreams(again), encodeUpstreams(d)) {
				t.Errorf("upstreams %x are %+v and then %+v: %v", b, d, again, err)
			}
		}
		if d, err := r.decodeNamespaces("ns", b); err == nil {
			again, err := r.decodeNamespaces("ns", encodeNamespaces(d))
			if err != nil || !bytes.Equal(encodeNamespaces(again), encodeNamespaces(d)) {
				t.Errorf("namespace %x is %+v and then %+v: %v", b, d, again, err)
			}
		}
		if events, err := r.decodeEvents(1, b, nil); err == nil && len(events) > 0 {
			again, err := r.decodeEvents(1, recordOf(events), nil)
			if err != nil || !bytes.Equal(recordOf(again), recordOf(events)) {
				t.Errorf("changes %x are %+v and then %+v: %v", b, events, again, err)
			}
		}
		if p, err := r.decodeProtection(b); err == nil {
			again, err := r.decodeProtection(p.encode())
			if err != nil || !bytes.Equal(again.encode(), p.encode()) {
				t.Errorf("protection %x is %+v and then %+v: %v", b, p, again, err)
			}
		}
		for _, key := range [][]byte{storage.InstanceKey("ns", "svc", "a"), storage.ServiceKey("ns", "svc"), storage.CheckpointKey(0), storage.CheckpointClockKey(), storage.PolicyKey("ns", "svc"), storage.UpstreamsKey("ns", "svc"), storage.NamespaceKey("ns"), storage.EventKey(1), []byte(storage.HistoryKey), []byte(storage.ProtectionKey), storage.RegionInstanceKey("b", 200, "ns", "svc", "a"), storage.CursorKey("b", 200)} {
			if d, ours, err := DescribeRecord(key, b); err == nil && (!ours || len(d.Value) == 0) {
				t.Errorf("%x under %s is described as %+v", b, key, d)
			}
		}
	})
}

// recordOf is how the history keeps events.
func recordOf(events []Event) []byte {
	ops := map[EventKind]changeOp{EventInstancePut: opPut, EventInstanceDelete: opDelete, EventServicePut: opServicePut, EventServiceDelete: opServiceDelete, EventPolicy: opPolicyPut, EventUpstreams: opUpstreamsPut}
	t := &step{}
	for _, e := range events {
		t.changes = append(t.changes, change{op: ops[e.Kind], service: e.Service, instance: e.Instance, previous: e.Previous, handedOut: e.HandedOut, wasHandedOut: e.WasHandedOut})
	}
	record, _ := t.eventsRecord()
	return record
}
