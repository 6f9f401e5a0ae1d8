package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestRegisterRefusesBadChecks shows that all that is wrong with a check is named
// by its JSON path, together with what is allowed, and that nothing changes.
func TestRegisterRefusesBadChecks(t *testing.T) {
	cases := map[string]struct {
		check  Check
		fields []string
		says   string
	}{
		"no kind":                  {Check{}, []string{"checks[0].kind"}, "is missing: http, https, tcp"},
		"a kind that is none":      {Check{Kind: "htpp"}, []string{"checks[0].kind"}, `"htpp" is not a kind of check`},
		"a name with a slash":      {Check{Kind: "http", Name: "a/b"}, []string{"checks[0].name"}, "not allowed"},
		"an endpoint that is none": {Check{Kind: "http", Endpoint: "db"}, []string{"checks[0].endpoint"}, `"db" is no endpoint of the instance`},
		"a path without a slash":   {Check{Kind: "http", Path: "healthz"}, []string{"checks[0].path"}, "begins with '/'"},
		"a path with a line":       {Check{Kind: "http", Path: "/a\r\nHost: b"}, []string{"checks[0].path"}, "is not a path"},
		"a path with a fragment":   {Check{Kind: "http", Path: "/a#b"}, []string{"checks[0].path"}, "is not a path"},
		"a path with a bad escape": {Check{Kind: "http", Path: "/%zz"}, []string{"checks[0].path"}, "is not a path"},
		"a path too long":          {Check{Kind: "http", Path: "/" + strings.Repeat("a", 1024)}, []string{"checks[0].path"}, "at most 1024 bytes"},
		"a service with a control": {Check{Kind: "grpc", Service: "a\x00"}, []string{"checks[0].service"}, "printable"},
		"too much to be sent":      {Check{Kind: "tcp", Send: strings.Repeat("a", 513)}, []string{"checks[0].send"}, "at most 512"},
		"expected is not UTF-8":    {Check{Kind: "tcp", Expect: "\xff"}, []string{"checks[0].expect"}, "UTF-8"},
		"fields of other kinds":    {Check{Kind: "redis", Path: "/", Service: "a", Send: "b", Expect: "c", ServerName: "d", TLSSkipVerify: true}, []string{"checks[0].path", "checks[0].service", "checks[0].send", "checks[0].expect", "checks[0].serverName", "checks[0].tlsSkipVerify", "checks[0].serverName"}, "is for the kinds http and https only, this check is of kind redis"},
		"a name that is skipped":   {Check{Kind: "tls", ServerName: "a.example", TLSSkipVerify: true}, []string{"checks[0].serverName"}, "contradicts tlsSkipVerify"},
		"a server name with port":  {Check{Kind: "tls", ServerName: "a.example:443"}, []string{"checks[0].serverName"}, "is not a host name"},
		"a negative interval":      {Check{Kind: "tcp", IntervalSeconds: -1, TimeoutSeconds: 1}, []string{"checks[0].intervalSeconds", "checks[0].timeoutSeconds"}, "-1 is not allowed: 1 to 3600, or 0 for 5"},
		"an interval too long":     {Check{Kind: "tcp", IntervalSeconds: 3601}, []string{"checks[0].intervalSeconds"}, "1 to 3600"},
		"a time-out too long":      {Check{Kind: "tcp", IntervalSeconds: 100, TimeoutSeconds: 61}, []string{"checks[0].timeoutSeconds"}, "1 to 60"},
		"a time-out over interval": {Check{Kind: "tcp", IntervalSeconds: 3, TimeoutSeconds: 4}, []string{"checks[0].timeoutSeconds"}, "longer than the interval of 3"},
		"rise and fall":            {Check{Kind: "tcp", Rise: -1, Fall: 101}, []string{"checks[0].rise", "checks[0].fall"}, "101 is not allowed: 1 to 100, or 0 for 3"},
		"an initial state":         {Check{Kind: "tcp", Initial: "draining"}, []string{"checks[0].initial"}, "passing, warning or critical"},
	}
	m := newMember(t, newManualClock())
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		t.Run(name, func(t *testing.T) {
			r := good()
			r.Checks = []Check{cases[name].check}
			_, err := m.registry.Register(context.Background(), "", r)
			mustBeInvalid(t, err, cases[name].fields, cases[name].says)
		})
	}
	twice := good()
	twice.Checks = []Check{{Kind: "tcp"}, {Kind: "TCP "}}
	_, err := m.registry.Register(context.Background(), "", twice)
	mustBeInvalid(t, err, []string{"checks[1].name"}, "already the name of checks[0]")
	many := good()
	many.Checks = make([]Check, checksMax+1)
	_, err = m.registry.Register(context.Background(), "", many)
	mustBeInvalid(t, err, []string{"checks"}, "has 9 checks: at most 8")
	mustEqual(t, "the number of proposals", m.proposed, 0)
}

// TestChecksAreCompleted shows what is taken where nothing is given, and that
// instances with the same checks share them.
func TestChecksAreCompleted(t *testing.T) {
	m := newMember(t, newManualClock())
	for _, id := range []string{"a", "b"} {
		r := good()
		r.ID = id
		r.Checks = []Check{{Kind: " HTTP "}, {Name: "short", Kind: "tcp", IntervalSeconds: 1, Initial: "Critical"}}
		if _, err := m.registry.Register(context.Background(), "", r); err != nil {
			t.Fatal(err)
		}
	}
	plain := good()
	plain.ID = "c"
	if _, err := m.registry.Register(context.Background(), "", plain); err != nil {
		t.Fatal(err)
	}
	a := m.machine.Instance(InstanceKey{"prod", "orders", "a"})
	mustEqualSlices(t, "the checks", a.Checks(), []Check{
		{Name: "http", Kind: "http", Endpoint: "http", Path: "/", IntervalSeconds: 5, TimeoutSeconds: 2, Rise: 2, Fall: 3, Initial: "passing"},
		{Name: "short", Kind: "tcp", Endpoint: "http", IntervalSeconds: 1, TimeoutSeconds: 1, Rise: 2, Fall: 3, Initial: "critical"},
	})
	checked := m.machine.Checked()
	mustEqualSlices(t, "those with checks", ids(checked), []string{"a", "b"})
	mustEqual(t, "that they share their checks", &checked[0].Checks()[0] == &checked[1].Checks()[0], true)
}

// TestAStoredCheckOfTheFutureIsRefused shows that a member does not go on without
// a check that it cannot read.
func TestAStoredCheckOfTheFutureIsRefused(t *testing.T) {
	i := &Instance{Origin: &Origin{Namespace: "prod", Service: "orders"}, ID: "a", Status: StatusPassing, Health: &Health{Checks: []Check{{Name: "web", Kind: "quic", Initial: "passing"}}}}
	_, err := newReader("here").decodeInstance(i.Key(), i.encode())
	if err == nil || !strings.Contains(err.Error(), "has a check of a kind that this version does not know: run a newer version") {
		t.Fatalf("it is read: %v", err)
	}
}

// TestSharedChecksAreBounded shows that many different sets of checks do not stay for ever.
func TestSharedChecksAreBounded(t *testing.T) {
	r := newReader("here")
	for n := range sharedChecksMax + 10 {
		checks := r.checks(checksToRecord([]Check{{Name: fmt.Sprint("c", n), Kind: CheckTCP, Initial: "passing"}}))
		mustEqual(t, "the name", checks[0].Name, fmt.Sprint("c", n))
		if len(r.sharedChecks) > sharedChecksMax {
			t.Fatalf("%d are kept", len(r.sharedChecks))
		}
	}
}
