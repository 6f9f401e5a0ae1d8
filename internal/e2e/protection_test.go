package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// The instances of a service, by number: the first half is in zone b, the second
// in zone a, of which the last five can be cut off.
const (
	zonedInstances = 20
	zonedCutOff    = 15 // from it on
)

// protectionLimit is long enough for a slow machine to show what is kept before it
// ends. It is the time that the test takes.
const protectionLimit = 10 * time.Second

// zoned is the service while some of its holders are cut off, and an Envoy that calls it.
type zoned struct {
	*leaseLoad
	e   *envoy
	cut atomic.Bool
}

// TestHalfOfAZoneIsCutOff shows on real members what self-preservation is for. Half
// of the holders of a service's zone cannot renew: none of them expires, all
// members say so, and a proxy uses them after the others. They come back, and it is
// over. They are cut off once more and do not come back, the leader is killed
// meanwhile: it is over at its limit, and they have expired.
func TestHalfOfAZoneIsCutOff(t *testing.T) {
	t.Parallel() // it waits most of its time
	c := newClusterWith(t, 3, func(m *member) { m.set(fmt.Sprintf("[health]\nprotection_limit = %q\n", protectionLimit)) })
	z := &zoned{leaseLoad: newLeaseLoad(t, c, 3*time.Second)}
	z.zone = func(n int) string { return string("ba"[n/(zonedInstances/2)]) }
	holding, stop := context.WithCancel(t.Context())
	defer func() { // before the test ends, whatever ends it
		stop()
		z.holding.Wait()
	}()
	z.hold(holding, "zoned", 0, zonedCutOff, 3, z.renewInBatches)
	z.hold(holding, "zoned", zonedCutOff, zonedInstances, 3, func(ctx context.Context, service string, from, to int) {
		if !z.cut.Load() {
			z.renewInBatches(ctx, service, from, to)
		}
	})
	z.enrolled.Wait()
	z.e = c.startEnvoy()
	z.become("passing", "HEALTHY", c.members...)

	z.cut.Store(true)
	z.become("suspect", "DEGRADED", c.members...)
	z.mustBeToldOf(c.members...)
	z.cut.Store(false)
	z.become("passing", "HEALTHY", c.members...)
	z.isOver(c.members...)
	z.mustBeAlive(0, c.members...)

	z.cut.Store(true)
	z.become("suspect", "DEGRADED", c.members...)
	since, leader := z.since(c.members[0]), c.leader(c.members...)
	c.kill(leader)
	z.become("expired", "UNHEALTHY", c.others(leader)...)
	took := time.Since(since)
	if took < protectionLimit {
		t.Errorf("those who were cut off were kept for %v, of %v", took, protectionLimit)
	}
	t.Logf("those who did not come back were kept for %v, of %v, under two leaders", took.Round(10*time.Millisecond), protectionLimit)
	z.isOver(c.others(leader)...)
	z.mustBeAlive(zonedInstances-zonedCutOff, c.others(leader)...)
	z.e.noNACK()
}

// become waits until those who can be cut off have a status at members, and a
// health at the proxy, and the others are as ever.
func (z *zoned) become(status, health string, at ...*member) {
	z.c.t.Helper()
	endpoints := make(map[string]string)
	for n := range zonedInstances {
		endpoints[hostOf(n)+":8080"] = "HEALTHY"
		if n >= zonedCutOff {
			endpoints[hostOf(n)+":8080"] = health
		}
	}
	want := map[string]int{"passing": zonedCutOff}
	want[status] += zonedInstances - zonedCutOff
	for _, m := range at {
		z.until(fmt.Sprintf("those who can be cut off to be %s at %s", status, m.name()), func() error {
			got, _, err := z.read(m)
			if err == nil && !maps.Equal(got, want) {
				err = fmt.Errorf("they are %v", got)
			}
			return err
		})
	}
	z.e.has(map[string]map[string]string{"zoned.default": endpoints})
}

func (z *zoned) until(what string, condition func() error) {
	z.c.t.Helper()
	if _, err := process.Within(z.c.t.Context(), lookTime, what, condition); err != nil {
		z.c.t.Fatal(err)
	}
}

// A zonePaused is a protection as the API tells of it.
type zonePaused struct {
	Scope, Zone, Reason string
	Since               time.Time
	Suspects, Leases    int
}

// read is how many instances of the service have which status, and where nothing expires.
func (z *zoned) read(m *member) (statuses map[string]int, paused []zonePaused, err error) {
	a, err := z.c.call(z.c.t.Context(), http.MethodGet, m.url()+"/api/v2/namespaces/default/services/zoned?consistency=stale", "")
	if err == nil {
		err = a.want(http.StatusOK)
	}
	if err != nil {
		return nil, nil, err
	}
	var service struct {
		Statuses    map[string]int
		Protections []zonePaused
	}
	err = json.Unmarshal(a.body, &service)
	return service.Statuses, service.Protections, err
}

// since is since when nothing expires in the zone.
func (z *zoned) since(m *member) time.Time {
	z.c.t.Helper()
	_, paused, err := z.read(m)
	if err != nil || len(paused) != 1 {
		z.c.t.Fatalf("%s says of what is protected: %v, %v", m.name(), paused, err)
	}
	return paused[0].Since
}

// mustBeToldOf checks that nothing expires in the zone, and nowhere else, by
// metrics, by the API and for the operator.
func (z *zoned) mustBeToldOf(at ...*member) {
	t := z.c.t
	t.Helper()
	for _, m := range at {
		for scope, want := range map[string]float64{"zone": 1, "service": 0, "cluster": 0} {
			if got := z.c.metricOf(m, fmt.Sprintf("stellmap_registry_protections{scope=%q}", scope)); got != want {
				t.Errorf("%s has %v protections of a %s", m.name(), got, scope)
			}
		}
		_, paused, err := z.read(m)
		want := zonePaused{"zone", "a", "5 of 10 leases of zone a ran out", z.since(m), 5, 10}
		if err != nil || len(paused) != 1 || paused[0] != want {
			t.Errorf("%s says of what is protected: %+v, %v", m.name(), paused, err)
		}
		line := "zone a of default/zoned: nothing expires since"
		for _, args := range [][]string{{"describe", "service", "zoned"}, {"status"}} {
			if code, out, errs := ctl(t, m.url(), args...); code != 0 || !strings.Contains(out, line) {
				t.Errorf("%s: exit code %d, without %q:\n%s%s", strings.Join(args, " "), code, line, out, errs)
			}
		}
	}
}

// isOver waits until everything may expire again.
func (z *zoned) isOver(at ...*member) {
	z.c.t.Helper()
	for _, m := range at {
		z.until("protection to be over at "+m.name(), func() error {
			_, paused, err := z.read(m)
			if err == nil && len(paused) > 0 {
				err = errors.New(paused[0].Reason)
			}
			return err
		})
	}
}
