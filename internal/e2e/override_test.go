package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// An operator's word on an instance outlives what its owner does and what happens to the members: that it
// registers again, at another member; that it is deregistered and comes back; that all members are killed.
// A proxy is not told of it until the word is taken back.
func TestAnOverrideOutlivesRegistrations(t *testing.T) {
	c := newCluster(t, 3)
	put := func(m *member, id string, port int) {
		t.Helper()
		c.must(http.MethodPut, instanceURL(m, "orders", id), registration(port, m.name()), http.StatusOK, http.StatusCreated)
	}
	put(c.members[0], "o-1", 9001)
	put(c.members[0], "o-2", 9002)
	e := c.startEnvoy()
	shows := func(endpoints ...string) {
		t.Helper()
		want := make(map[string]string)
		for _, one := range endpoints {
			want[one] = "HEALTHY"
		}
		e.has(map[string]map[string]string{"orders.default": want})
	}
	shows("127.0.0.1:9001", "127.0.0.1:9002")

	mustCtl := func(m *member, want string, args ...string) {
		t.Helper()
		if code, out, errs := ctl(t, m.url(), args...); code != 0 || !strings.Contains(out, want) {
			t.Fatalf("%s: exit code %d, without %q:\n%s%s", strings.Join(args, " "), code, want, out, errs)
		}
	}
	mustCtl(c.members[1], "is disabled by an operator's word", "override", "set", "orders/o-1", "disabled", "--reason", "its disk is being replaced")
	shows("127.0.0.1:9002")
	put(c.members[2], "o-1", 9011)
	c.becomes(c.members[0], "orders", "o-1", "disabled")
	c.must(http.MethodDelete, instanceURL(c.members[2], "orders", "o-1"), "", http.StatusOK)
	mustCtl(c.members[0], "its disk is being replaced", "describe", "service", "orders") // it waits for o-1
	c.kill(c.members...)
	for _, m := range c.members {
		c.start(m)
	}
	c.mustBeReady()
	put(c.members[1], "o-1", 9021)
	c.becomes(c.members[2], "orders", "o-1", "disabled")
	put(c.members[0], "o-3", 9003)
	shows("127.0.0.1:9002", "127.0.0.1:9003")

	mustCtl(c.members[2], "is what the others say of it", "override", "clear", "orders/o-1")
	shows("127.0.0.1:9021", "127.0.0.1:9002", "127.0.0.1:9003")
	e.noNACK()
}
