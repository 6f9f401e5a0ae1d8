package grpcapi

import (
	"fmt"
	"testing"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
)

// BenchmarkRenew is one request on a stream with a thousand renewals, client and server in one process; an op is one renewal.
func BenchmarkRenew(b *testing.B) {
	const each = 1_000
	m := newMember(b, nil)
	request := &stellmapv1.RenewRequest{}
	for n := range each {
		id := fmt.Sprint("i", n)
		answer, err := m.client.Register(b.Context(), registration("orders", id))
		if err != nil {
			b.Fatal(err)
		}
		request.Renewals = append(request.Renewals, &stellmapv1.Renewal{Namespace: "prod", Service: "orders", InstanceId: id, LeaseToken: answer.GetLeaseToken()})
	}
	stream, err := m.client.Renew(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += each {
		if err := stream.Send(request); err != nil {
			b.Fatal(err)
		}
		if answer, err := stream.Recv(); err != nil || answer.GetFailed() > 0 {
			b.Fatal(answer, err)
		}
	}
}

// BenchmarkWatch is one change told to a hundred watches; an op is one telling.
func BenchmarkWatch(b *testing.B) {
	const each = 100
	m := newMember(b, nil)
	var all []*watcher
	for range each {
		w := m.watch(b.Context(), &stellmapv1.WatchRequest{Filter: orders()})
		w.mustTell("RESYNC_START:")
		all = append(all, w)
	}
	b.ReportAllocs()
	b.ResetTimer()
	one := registration("orders", "a")
	for done := 0; done < b.N; done += each {
		one.Version = fmt.Sprint(done)
		answer, err := m.client.Register(b.Context(), one)
		if err != nil {
			b.Fatal(err)
		}
		one.LeaseToken = answer.GetLeaseToken()
		for _, w := range all {
			w.next()
		}
	}
}
