package registry

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/internal/corpus"
)

// FuzzImportable: what another region tells of an instance is taken in only where it could have
// been registered here, and is the same when it is read again.
func FuzzImportable(f *testing.F) {
	for _, r := range []*recordv1.InstanceRecord{{}, {Format: 1, Spec: &recordv1.InstanceSpec{LeaseTtlMs: 1000, Endpoints: []*recordv1.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 80, Weight: 100}}}}} {
		corpus.Add(f, fmt.Sprint("a record of format ", r.GetFormat()), "prod", "orders", "a", false, encode(r))
	}
	corpus.Add(f, "gone without a name", "", "a/b", "\x00", true, []byte(nil))
	f.Fuzz(func(t *testing.T, namespace, service, id string, gone bool, record []byte) {
		item := ImportItem{Key: InstanceKey{Namespace: namespace, Service: service, ID: id}, Revision: 7, Record: new(recordv1.InstanceRecord), Gone: gone}
		if proto.Unmarshal(record, item.Record) != nil {
			return
		}
		taken, err := newReader("there").importable(&item, new(Selection))
		if err != nil || gone {
			return
		}
		again := item
		again.Record = taken.GetPut()
		if once, err := newReader("there").importable(&again, new(Selection)); err != nil || !proto.Equal(once, taken) {
			t.Errorf("%v is taken in as %v, and that as %v, %v", item, taken, once, err)
		}
	})
}
