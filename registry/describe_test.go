package registry

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// A command and a record read as one line of JSON each; what a newer version
// wrote, what is damaged and what is under a wrong key is an error.
func TestDescribe(t *testing.T) {
	command := encode(&recordv1.Command{Format: 1, Kind: &recordv1.Command_Deregister{Deregister: &recordv1.Deregister{
		Keys: []*recordv1.InstanceKey{{Namespace: "prod", Service: "orders", Id: "a"}},
	}}})
	line, err := DescribeCommand(command)
	if want := `{"format":1,"deregister":{"keys":[{"namespace":"prod","service":"orders","id":"a"}]}}`; string(line) != want || err != nil {
		t.Errorf("the command reads %s, %v", line, err)
	}
	for name, data := range map[string][]byte{
		"newer": encode(&recordv1.Command{Format: formatMax + 1}), "without a format": nil, "damaged": {0xff},
	} {
		if line, err := DescribeCommand(data); err == nil {
			t.Errorf("a command that is %s reads %s", name, line)
		}
	}

	instance := encode(&recordv1.InstanceRecord{Format: 1, Status: recordv1.InstanceRecord_STATUS_PASSING, Revision: 7})
	expired := encode(&recordv1.InstanceRecord{Format: 1, Status: recordv1.InstanceRecord_STATUS_EXPIRED})
	service := encode(&recordv1.ServiceRecord{Format: 1, Created: 5})
	policy := encode(&recordv1.DocumentRecord{Format: 1, Edits: []*recordv1.Edit{{Version: 1, Policy: &recordv1.Policy{}}}})
	protection := (&ExpiryPause{Scope: Scope{Kind: ScopeCluster}, Since: 7, Limit: time.Second, Lapsed: 6, Leases: 10, Least: 5, Percent: 15}).encode()
	for _, one := range []struct {
		key     string
		value   []byte
		kind    string
		passing bool
		want    string // of the value or of the error
	}{
		{string(storage.InstanceKey("prod", "orders", "a")), instance, "instance", true, `{"format":1,"status":"STATUS_PASSING","revision":"7"}`},
		{string(storage.InstanceKey("prod", "orders", "a")), expired, "instance", false, `STATUS_EXPIRED`},
		{string(storage.ServiceKey("prod", "orders")), service, "service", false, `{"format":1,"created":"5"}`},
		{string(storage.PolicyKey("prod", "orders")), policy, "policy", false, `{"format":1,"edits":[{"version":"1","policy":{}}]}`},
		{string(storage.UpstreamsKey("prod", "shop")), policy, "upstreams", false, `{"format":1,"edits":[{"version":"1","policy":{}}]}`},
		{string(storage.NamespaceKey("prod")), policy, "namespace", false, `{"format":1,"edits":[{"version":"1","policy":{}}]}`},
		{storage.NamespacePrefix + "prod/orders", policy, "namespace", false, "has 2 parts after its prefix, not 1"},
		{string(storage.RoleKey("ops")), policy, "role", false, `{"format":1,"edits":[{"version":"1","policy":{}}]}`},
		{string(storage.BindingKey("ops")), policy, "binding", false, `{"format":1,"edits":[{"version":"1","policy":{}}]}`},
		{storage.AccessBegunKey, encode(&recordv1.AccessBegunRecord{Format: 1, Revision: 7}), "first access token", false, `{"format":1,"revision":"7"}`},
		{string(storage.AccessTokenKey("a1")), encode(&recordv1.AccessTokenRecord{Format: 1, By: "ann"}), "access token", false, `{"format":1,"by":"ann"}`},
		{storage.ProtectionKey, protection, "protection", false, `{"format":1,"protection":{"scope":{"kind":"KIND_CLUSTER"},"sinceMs":"7","limitMs":"1000","lapsed":6,"leases":10,"least":5,"percent":15}}`},
		{storage.ProtectionKey, nil, "protection", false, "has no format"},
		{string(storage.EventKey(9)), recordOf([]Event{{Kind: EventServicePut, Service: ServiceKey{"prod", "orders"}}}), "events", false, `{"format":1,"count":1,"events":[{"kind":"KIND_SERVICE_PUT","service":{"namespace":"prod","service":"orders"}}]}`},
		{storage.HistoryKey, encode(&recordv1.HistoryRecord{Format: 1, Floor: 7}), "history", false, `{"format":1,"floor":"7"}`},
		{string(storage.RegionInstanceKey("b", 200, "prod", "orders", "a")), instance, "imported instance", false, `{"format":1,"status":"STATUS_PASSING","revision":"7"}`},
		{storage.RegionPrefix + "b/200/prod/orders/a", instance, "imported instance", false, "has 5 parts after its prefix, not 7"},
		{string(storage.CursorKey("b", 200)), (&Region{Held: HeldSweep{Since: 7, Instances: 3, Of: 4}}).encode(), "copy of a region", false, `{"format":1,"cursor":{},"heldSinceMs":"7","held":"3","heldOf":"4"}`},
		{storage.InstancePrefix + "prod/orders", instance, "instance", false, "has 2 parts after its prefix, not 3"},
		{storage.ServicePrefix + "prod/orders/a", service, "service", false, "has 3 parts after its prefix, not 2"},
		{string(storage.CheckpointClockKey()), encode(&recordv1.ToldClockRecord{Format: 1, LivedMs: 4000}), "checkpoint clock", false, `{"format":1,"livedMs":"4000"}`},
		{string(storage.CheckpointKey(30)), encode(&recordv1.ToldRecord{Format: 1, Revision: 9, Heard: []uint32{7}, HeardAt: []uint32{8}}), "checkpoints", false, `{"format":1,"revision":"9","heard":[7],"heardAt":[8]}`},
		{string(storage.ServiceKey("prod", "orders")), []byte{0xff}, "service", false, "decode the record of 1 bytes under /services/prod/orders"},
		{string(storage.ServiceKey("prod", "orders")), encode(&recordv1.ServiceRecord{Format: 9}), "service", false, "has format 9, this version reads up to 1"},
	} {
		d, ok, err := DescribeRecord([]byte(one.key), one.value)
		got := string(d.Value)
		if err != nil {
			got = err.Error()
		}
		if !ok || d.Kind != one.kind || d.Passing != one.passing || !strings.Contains(got, one.want) {
			t.Errorf("%s is %q, passing %v: %s; want %s", one.key, d.Kind, d.Passing, got, one.want)
		}
	}
	if d, ok, err := DescribeRecord([]byte(storage.MetaPrefix+"time"), nil); ok || err != nil {
		t.Errorf("another's key is %v, %v", d, err)
	}
}

// TestEveryKeyIsDescribed shows that no part of the engine is forgotten by those who read
// backups: each prefix and key that storage/keyspace.go names is told of, but for the
// consensus's.
func TestEveryKeyIsDescribed(t *testing.T) {
	page, err := os.ReadFile("../storage/keyspace.go")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?m)^\t\w+(?:Prefix|Key) += "(/[^"]*)"$`).FindAllSubmatch(page, -1)
	if len(named) < 12 {
		t.Fatalf("only %d prefixes were found in the page", len(named))
	}
	for _, name := range named {
		if _, ours, _ := DescribeRecord(name[1], nil); !ours {
			t.Errorf("what is under %s is not described: stellmapctl reads no backup that has it", name[1])
		}
	}
}
