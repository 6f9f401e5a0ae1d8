package xds

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/stellmap/stellmap/registry"
)

// becomes gives a member another's state, as the consensus does.
func (m *member) becomes(other *member) {
	m.tb.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	state, err := other.engine.Snapshot()
	if err != nil {
		m.tb.Fatal(err)
	}
	var stream bytes.Buffer
	_, err = state.WriteTo(&stream)
	if err := errors.Join(err, state.Close(), m.engine.Restore(&stream)); err != nil {
		m.tb.Fatal(err)
	}
	m.index = registry.Revision(m.engine.AppliedIndex().Index)
	if err := m.machine.Install(m.index); err != nil {
		m.tb.Fatal(err)
	}
}

// nextHosts are the addresses in the only resource of an EDS response.
func nextHosts(t *testing.T, c *deltaClient, name string) []string {
	t.Helper()
	r := c.wants(typeEndpoints, name)
	c.ack(r)
	return hostsIn(t, r.Resources[0].Resource)
}

func hostsIn(t *testing.T, resource *anypb.Any) []string {
	t.Helper()
	var cla endpointv3.ClusterLoadAssignment
	if err := resource.UnmarshalTo(&cla); err != nil {
		t.Fatal(err)
	}
	hosts := []string{}
	for _, l := range cla.Endpoints {
		for _, e := range l.LbEndpoints {
			hosts = append(hosts, e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress())
		}
	}
	return hosts
}

// A member that falls so far behind that it takes over another's state sends its streams that state, in one step:
// nothing empty, nothing older, nothing that has not changed.
func TestStreamsGoOnWithAnInstalledState(t *testing.T) {
	m := newMember(t, nil)
	other := newRegistry(t)
	for _, one := range []*member{m, other} {
		for n := range 5 {
			one.add("orders", n)
			one.add("gone", n)
			one.add("same", n)
		}
	}
	c := m.delta(nodeOf(t))
	c.subscribe(typeCluster)
	c.ack(c.wants(typeCluster, "gone.prod", "orders.prod", "same.prod"))
	c.subscribe(typeEndpoints, "orders.prod")
	if hosts := nextHosts(t, c, "orders.prod"); len(hosts) != 5 {
		t.Fatalf("at first %v", hosts)
	}
	c.subscribe(typeEndpoints, "same.prod")
	nextHosts(t, c, "same.prod")

	for n := range 5 {
		other.drop("orders", n)
		other.add("orders", 100+n)
		other.drop("gone", n)
	}
	other.reap("prod", "gone")
	other.add("fresh", 1)
	m.becomes(other)
	var want []string
	for n := range 5 {
		want = append(want, addressOf(100+n))
	}
	seen := map[string]bool{}
	for len(seen) < 3 {
		r := c.next(t)
		c.ack(r)
		for _, res := range r.Resources {
			seen[res.Name+" "+r.TypeUrl] = true
			switch {
			case res.Name == "same.prod":
				t.Errorf("same.prod has not changed, and is sent again")
			case r.TypeUrl == typeURLs[typeEndpoints] && res.Name == "orders.prod":
				if hosts := hostsIn(t, res.Resource); !slices.Equal(hosts, want) {
					t.Errorf("after the install the hosts are %v, want %v", hosts, want)
				}
			}
		}
		for _, name := range r.RemovedResources {
			if name != "gone.prod" {
				t.Errorf("%s is taken away", name)
			}
			seen["-"+name] = true
		}
	}
	m.add("orders", 200)
	if hosts := nextHosts(t, c, "orders.prod"); len(hosts) != 6 {
		t.Errorf("after one more change %v", hosts)
	}
	c.quiet()
}

// However often it happens, beside changes and new streams, a stream never sees fewer hosts than were ever there.
func TestManyInstallsUnderStreams(t *testing.T) {
	m, other := newMember(t, nil), newRegistry(t)
	for _, one := range []*member{m, other} {
		for n := range 5 {
			one.add("orders", n)
		}
	}
	for round := range 20 {
		c := m.delta(nodeOf(t))
		c.subscribe(typeEndpoints, "orders.prod")
		before := len(nextHosts(t, c, "orders.prod"))
		for n := range 3 {
			other.add("orders", 10+3*round+n)
		}
		for other.machine.Revision() <= m.machine.Revision() {
			other.commit(nil)
		}
		m.becomes(other)
		if now := len(nextHosts(t, c, "orders.prod")); now != before+3 {
			t.Fatalf("round %d: %d hosts after %d, want 3 more", round, now, before)
		}
		if err := c.stream.CloseSend(); err != nil {
			t.Fatal(fmt.Errorf("close: %w", err))
		}
	}
}
