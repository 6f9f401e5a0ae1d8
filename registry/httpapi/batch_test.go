package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/registry"
)

// batchOf is the body of a batch of so many renewals of prod/orders.
func batchOf(items int) string {
	var body strings.Builder
	body.WriteString(`{"items":[`)
	for n := range items {
		if n > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"renew":{"namespace":"prod","service":"orders","instanceId":"i-%05d","leaseToken":%q}}`, n, ownToken)
	}
	body.WriteString(`]}`)
	return body.String()
}

// TestBatchesAreBounded shows that each bound is told by its number, and that a
// batch that is refused has changed nothing.
func TestBatchesAreBounded(t *testing.T) {
	m := newMember(t, nil)
	m.register("orders", "o-0", "10.0.0.9", "")
	before := m.fingerprint()
	const target = "/api/v2/batch"
	mustBeRefused(t, m.call(http.MethodPost, target, batchOf(registry.BatchItemsMax+1)), "items", 0)
	mustBeRefused(t, m.call(http.MethodPost, target, `{"items":[`+strings.Repeat(" ", batchBytesMax)+`]}`), "4194304", http.StatusRequestEntityTooLarge)
	m.must(http.StatusOK, http.MethodPost, target, batchOf(registry.BatchItemsMax))

	m.api.batches.Store(batchesInflightMax)
	mustBeRefused(t, m.call(http.MethodPost, target, batchOf(1)), "64 batches", http.StatusTooManyRequests)
	mustEqual(t, "the slots after it", m.api.batches.Load(), batchesInflightMax)
	m.api.batches.Store(0)
	mustEqual(t, "the registry", m.fingerprint(), before)
}

// TestAnIdempotencyKeyCoversABatch shows that the ids of its commands are the same
// for the same items, in whatever order their maps are, and others for other items.
func TestAnIdempotencyKeyCoversABatch(t *testing.T) {
	m := newMember(t, nil)
	ids := func(labels string) string {
		m.set(func() { m.log.Requests = nil })
		body := `{"items":[{"deregister":{"namespace":"prod","service":"orders","instanceId":"x"}},{"register":{"namespace":"prod","service":"orders","instanceId":"a","leaseToken":"` + ownToken + `","labels":{` + labels + `},"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}]}}]}`
		m.must(http.StatusOK, http.MethodPost, "/api/v2/batch", body, "Idempotency-Key: k-1")
		return strings.Join(m.log.Requests, "\n")
	}
	first := ids(`"a":"1","b":"2"`)
	mustEqual(t, "the number of ids", strings.Count(first, "\n"), 1)
	mustEqual(t, "the ids of the same batch", ids(`"b":"2","a":"1"`), first)
	if other := ids(`"a":"1"`); other == first {
		t.Errorf("another batch has the ids %s, too", other)
	}
	m.must(http.StatusBadRequest, http.MethodPost, "/api/v2/batch", batchOf(1), "Idempotency-Key: "+strings.Repeat("k", 200))
}

// registerOwn registers an instance with ownToken.
func (m *member) registerOwn(service, id string) {
	m.tb.Helper()
	m.must(http.StatusCreated, http.MethodPut, "/api/v2/namespaces/prod/services/"+service+"/instances/"+id, `{"endpoints":[{"protocol":"http","host":"10.0.0.1","port":80}]}`, leaseTokenHeader+": "+ownToken)
}

// BenchmarkBatchRenew is the renewals of a whole batch, from the bytes of the
// request to those of the answer, at a member that leads.
func BenchmarkBatchRenew(b *testing.B) {
	m := newMember(b, nil)
	for n := range registry.BatchItemsMax {
		m.registerOwn("orders", fmt.Sprintf("i-%05d", n))
	}
	body := batchOf(registry.BatchItemsMax)
	b.ReportAllocs()
	for b.Loop() {
		m.must(http.StatusOK, http.MethodPost, "/api/v2/batch", body)
	}
	b.ReportMetric(float64(b.N)*registry.BatchItemsMax/b.Elapsed().Seconds(), "renewals/s")
}
