package registrytest

import (
	"fmt"
	"strings"
	"testing"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/registry"
)

// A Told is an instance as its own region tells of it.
type Told struct {
	Namespace, Service, ID string
	Protocol, Host         string
	Port                   int32
	Status                 registry.Status // 0 = passing
}

// Tell makes the copy of a region what it tells now: all of it, in one full sync.
func Tell(tb testing.TB, r *registry.Registry, of registry.RegionKey, all ...Told) {
	tb.Helper()
	now := r.Region(of)
	begin := registry.Import{Region: of, Step: registry.ImportStepBegin, After: now.Cursor, Upto: now.NextSync("beef")}
	part := registry.Import{Region: of, Step: registry.ImportStepPart, After: begin.Upto, Upto: begin.Upto, KnownAge: true}
	part.Upto.Parts++
	for _, one := range all {
		part.Items = append(part.Items, one.item())
	}
	sweep := registry.Import{Region: of, Step: registry.ImportStepSweep, After: part.Upto, Upto: registry.ImportCursor{Incarnation: "beef", Revision: 7}, KnownAge: true}
	for _, one := range []registry.Import{begin, part, sweep} {
		result, err := r.Import(tb.Context(), one)
		if err != nil {
			tb.Fatalf("take in what region %s tells: %v", of.Region, err)
		}
		for _, refused := range result.Refused {
			tb.Fatalf("region %s tells what cannot be taken in: %v", of.Region, refused)
		}
	}
}

// ToldOf reads instances, one a line: namespace, service, id, protocol, host, port and, if it is not passing, status.
func ToldOf(tb testing.TB, text string) []Told {
	tb.Helper()
	var out []Told
	for line := range strings.Lines(text) {
		one, status := Told{}, registry.StatusPassing.String()
		if n, err := fmt.Sscan(line, &one.Namespace, &one.Service, &one.ID, &one.Protocol, &one.Host, &one.Port, &status); n < 6 {
			tb.Fatalf("%q is no instance: %v", line, err)
		}
		for one.Status.String() != status {
			if one.Status++; one.Status > registry.StatusDisabled {
				tb.Fatalf("%q has no status that there is", line)
			}
		}
		out = append(out, one)
	}
	return out
}

func (t Told) item() registry.ImportItem {
	if t.Status == 0 {
		t.Status = registry.StatusPassing
	}
	return registry.ImportItem{
		Key: registry.InstanceKey{Namespace: t.Namespace, Service: t.Service, ID: t.ID}, Revision: 6,
		Record: &recordv1.InstanceRecord{
			Format: 1, Status: recordv1.InstanceRecord_Status(t.Status), RegisteredAtMs: 1, LastHeartbeatMs: 1,
			Spec: &recordv1.InstanceSpec{LeaseTtlMs: 30_000, Endpoints: []*recordv1.Endpoint{{Name: t.Protocol, Protocol: t.Protocol, Host: t.Host, Port: t.Port, Weight: 100}}},
		},
	}
}
