package xds

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/stellmap/stellmap/registry"
)

// Of each instance it is said by what it has its priority, or is not told of: by which
// field of the policy, or by the settings.
func TestWhyAnInstanceHasItsPriority(t *testing.T) {
	m := newMember(t, func(c *Config, _ *limits) { c.Regions = []string{"here", "west"} })
	for n, zone := range map[int]string{1: "a", 2: "b"} {
		m.addInZone("orders", n, zone)
	}
	m.tell("east", toldOf("orders", 101, "", registry.StatusPassing))
	m.tell("west", toldOf("orders", 201, "", registry.StatusPassing))
	node := nodeOf(t)
	node.Locality = &corev3.Locality{Region: "here", Zone: "a"}
	c := m.delta(node)
	c.subscribe(typeEndpoints, "orders.prod")
	c.ack(c.wants(typeEndpoints, "orders.prod"))
	expect := func(failover string, want ...string) {
		t.Helper()
		m.putPolicy(t, "orders", `{"failover":`+failover+`}`)
		m.settled()
		got := ""
		eventually(t, "the proxy has what it is to have", func() bool {
			for _, r := range drain(c.received) {
				c.ack(r)
			}
			got = m.explained("")
			return strings.Contains(got, "eds synced")
		})
		var why []string
		for _, line := range strings.Split(got, "\n") {
			if fields := strings.Fields(line); len(fields) > 2 && strings.Contains(fields[1], ":80") {
				_, reason, _ := strings.Cut(line, "has ")
				place, reason, _ := strings.Cut(reason, ": ")
				why = append(why, fields[0]+" "+strings.TrimSuffix(place, "/100/healthy")+": "+reason)
			}
		}
		if text := strings.Join(why, "\n"); text != strings.Join(want, "\n") {
			t.Errorf("by %s it is explained so:\n%s", failover, text)
		}
	}
	home := func(id string) string { return id + " 0: its region is the proxy's" }
	west := "west/1/201 1: its region comes after the proxy's, here; the others are in the order of federation.regions in the settings"
	expect(`{}`, home("1"), home("2"), "east/1/101 2: its region comes after the proxy's, here; the others are in the order of their names", west)
	expect(`{"regions":["east"]}`, home("1"), home("2"), "east/1/101 1: its region comes after the proxy's, here; the others are in the order of failover.regions of its policy", strings.Replace(west, " 1:", " 2:", 1))
	expect(`{"mode":"local-only"}`, home("1"), home("2"),
		"east/1/101 nothing: failover.mode of its policy is local-only, and its region is not the proxy's, here",
		"west/1/201 nothing: failover.mode of its policy is local-only, and its region is not the proxy's, here")
	expect(`{"mode":"local-first","minPassing":2}`, home("1"), home("2"),
		"east/1/101 nothing: failover.mode of its policy is local-first, and the proxy's region, here, has the 2 passing that it needs",
		"west/1/201 nothing: failover.mode of its policy is local-first, and the proxy's region, here, has the 2 passing that it needs")
	alike := " 0: failover.mode of its policy is merged: all regions are alike"
	expect(`{"mode":"merged"}`, "1"+alike, "2"+alike, "east/1/101"+alike, "west/1/201"+alike)
	expect(`{"zoneFirst":true,"mode":"local-first"}`, "1 0: its zone is the proxy's, which is called first by failover.zoneFirst",
		"2 1: its region is the proxy's, and the proxy's own zone, a, is called before it by failover.zoneFirst",
		"east/1/101 nothing: failover.mode of its policy is local-first, and the proxy's region, here, has the 1 passing that it needs",
		"west/1/201 nothing: failover.mode of its policy is local-first, and the proxy's region, here, has the 1 passing that it needs")

	m.register(registry.Registration{Namespace: "prod", Service: "orders", ID: "2", Zone: "b", Endpoints: []registry.Endpoint{at("http", "http", addressOf(2), 80, 1000)}})
	ref := registry.InstanceRef{Namespace: "prod", Service: "orders", ID: "2"}
	expect(`{"zoneFirst":true,"mode":"local-only"}`, "1 0: its region is the proxy's; its zone would be called first by failover.zoneFirst, and has less than its share", "2 0/1000/healthy: its region is the proxy's",
		"east/1/101 nothing: failover.mode of its policy is local-only, and its region is not the proxy's, here",
		"west/1/201 nothing: failover.mode of its policy is local-only, and its region is not the proxy's, here")
	if _, err := m.registry.Override(t.Context(), "", ref, registry.Override{Status: "critical"}); err != nil {
		t.Fatal(err)
	}
	poor := " 1: its region is the proxy's, and has too few healthy by failover.minHealthyPercent: others are called before it"
	few := ": the proxy's region, here, has too few healthy by failover.minHealthyPercent, and its region is the next"
	expect(`{"allOrNothing":true,"minHealthyPercent":60,"regions":["west"]}`, "1 2"+poor[2:], "2 2/1000/unhealthy"+poor[2:]+"; operator says critical",
		"east/1/101 1: its region comes after the proxy's, here; the others are in the order of their names", "west/1/201 0"+few)
}
