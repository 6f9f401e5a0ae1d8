package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// Two callers report an instance, each at another member, and a real Envoy is told
// that it is unhealthy; when the time of their reports is over it is told that it is
// healthy again, without anybody's doing. One caller alone brings nothing about,
// whatever names it gives itself.
func TestReportsMakeAnInstanceUnhealthyForAWhile(t *testing.T) {
	t.Parallel() // it waits most of its time
	c := newCluster(t, 3)
	for n := range 2 {
		c.must(http.MethodPut, instanceURL(c.members[n], "orders", fmt.Sprint("o-", n+1)), registration(9001+n, "v"), http.StatusCreated)
	}
	policy := c.members[2].url() + "/api/v2/namespaces/default/services/orders/policy"
	c.must(http.MethodPut, policy, `{"reports":{"effect":"critical","quorum":2,"lastsSeconds":5}}`, http.StatusCreated)
	e := c.startEnvoy()
	shows := func(health string) {
		t.Helper()
		e.has(map[string]map[string]string{"orders.default": {"127.0.0.1:9001": health, "127.0.0.1:9002": "HEALTHY"}})
	}
	shows("HEALTHY")

	for n := range 3 {
		c.reports(c.members[n], "127.0.0.2", fmt.Sprint("name-", n), `"reporters":1,"effect":"critical","quorum":2`)
	}
	c.reports(c.members[1], "127.0.0.3", "web-2", `"reporters":2,"effect":"critical","quorum":2`)
	shows("UNHEALTHY")
	if code, out, errs := ctl(t, c.members[0].url(), "describe", "service", "orders"); code != 0 || !strings.Contains(out, "reporters within 30 s") {
		t.Fatalf("describe: exit code %d:\n%s%s", code, out, errs)
	}
	shows("HEALTHY")
	e.noNACK()
}

// reports says at a member, from an address, that o-1 cannot be reached.
func (c *cluster) reports(m *member, from, name, want string) {
	c.t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, address)
	}, DisableKeepAlives: true}}
	body := fmt.Sprintf(`{"reporter":%q,"outcome":"failure","reason":"connection refused"}`, name)
	answer, err := client.Post(instanceURL(m, "orders", "o-1")+"/report", "application/json", strings.NewReader(body))
	if err != nil {
		c.t.Fatalf("report from %s: %v", from, err)
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(text), want) {
		c.t.Fatalf("a report from %s is answered with %d, without %s: %s %v", from, answer.StatusCode, want, text, err)
	}
}
