package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/registrytest"
)

// TestStories runs the stories in testdata: requests, and the answers byte for byte.
func TestStories(t *testing.T) {
	registrytest.Stories(t, func(t *testing.T, path string) {
		s := &story{t: t}
		s.member = newMember(t, nil)
		if strings.HasPrefix(filepath.Base(path), "members") {
			s.membership = &fakeMembership{}
			s.member = newMember(t, func(c *Config) {
				c.Membership, c.AdminToken = s.membership, "s3cret"
				c.Replicators = func() []Replicator {
					return []Replicator{{Name: "mirror", Region: "there", ClusterID: 200, Since: time.UnixMilli(1_790_000_000_000).UTC(), SentRevision: 40, AckedRevision: 38, BehindRevisions: 2, WindowBytes: 512}}
				}
			})
			s.membership.member = s.member
		}
		if strings.HasPrefix(filepath.Base(path), "v2_regions") {
			s.member = newMember(t, func(c *Config) {
				c.Federation = func() Federation {
					return Federation{Neighbours: registry.Neighbours{Sources: []registry.RegionKey{neighbour}, Fresh: 30 * time.Second}}
				}
			})
		}
		if strings.HasPrefix(filepath.Base(path), "proxies") {
			s.proxies = newFakeProxies()
			s.member = newMember(t, func(c *Config) { c.Proxies = s.proxies })
		}
		switch filepath.Base(path) {
		case "access_off":
			s.member = newMember(t, func(c *Config) { c.Authority, c.AdminToken = &drawer{}, "s3cret" })
		case "access_on":
			s.member = guarded(t, &holder{"reader", reads}, &holder{"writer", writesAccess}, &giver{holder{"team", writesAccess}, "operator"}, &giver{holder{"operator", anything}, ""})
		}
		datadriven.RunTest(t, path, s.command)
	})
}

// neighbour is the other region of stories about regions.
var neighbour = registry.RegionKey{Region: "b", Cluster: 200}

type story struct {
	t          *testing.T
	member     *member
	membership *fakeMembership // of stories about members only
	proxies    *fakeProxies    // of stories about proxies only
}

// faults are what can be wrong with the log, by the word that a story uses.
var faults = map[string]error{
	"none":            nil,
	"no-leader":       registry.ErrNoLeader,
	"busy":            registry.ErrBusy,
	"full":            registry.ErrFull,
	"unknown-outcome": registry.ErrUnknownOutcome,
	"stopping":        registry.ErrStopping,
	"deadline":        context.DeadlineExceeded,
	"unforeseen":      errors.New("the disk is on fire"),
}

func (s *story) command(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "http", "admin":
		return s.request(d)
	case "told": // what region b tells, see registrytest.ToldOf
		registrytest.Tell(t, s.member.config.Registry, neighbour, registrytest.ToldOf(t, d.Input)...)
		return "ok\n"
	case "tick":
		time, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		s.member.clock.pass(time)
		return "ok\n"
	case "fault":
		fault, known := faults[d.CmdArgs[0].Key]
		if !known {
			t.Fatalf("unknown fault %s", d.CmdArgs[0].Key)
		}
		s.member.set(func() { s.member.log.Fault = fault })
		return "ok\n"
	case "leaderless": // and nothing confirmed since the start
		s.member.set(func() { s.member.status.LeaderID, s.member.status.Confirmed = 0, false })
		return "ok\n"
	case "nameless": // its first leader has not chosen the cluster's incarnation yet
		s.member.set(func() { s.member.status.Incarnation = "" })
		return "ok\n"
	case "low": // true or false: this member's disk
		s.member.set(func() { s.member.status.LowSpace = d.CmdArgs[0].Key == "true" })
		return "ok\n"
	case "asked": // of the membership or the proxies, since the last time
		if s.proxies != nil {
			return s.proxies.takeAsked()
		}
		return s.membership.takeAsked()
	case "proxies": // what their members say of them
		return s.proxies.play(d)
	case "become": // the incarnation that the cluster is of, and the id of this member
		s.member.set(func() {
			s.member.status.Incarnation = d.CmdArgs[0].Key
			s.member.status.ID, _ = strconv.ParseUint(d.CmdArgs[1].Key, 10, 64)
		})
		return "ok\n"
	case "await": // an instance of orders to have a status
		s.member.await("orders", d.CmdArgs[0].Key, d.CmdArgs[1].Key)
		return "ok\n"
	case "withhold":
		return s.withhold(d)
	case "fleet": // ten instances of zone a, of which five have short leases
		s.member.registerFleet()
		return "ok\n"
	}
	t.Fatalf("unknown command %s", d.Cmd)
	return ""
}

// withhold has lines of service, instance, endpoint and reason; - is an empty one.
func (s *story) withhold(d *datadriven.TestData) string {
	of := make(map[registry.ServiceKey][]Withheld)
	for line := range strings.Lines(d.Input) {
		words := strings.SplitN(strings.TrimSpace(line), " ", 4)
		for i := range words {
			if words[i] == "-" {
				words[i] = ""
			}
		}
		namespace, service, _ := strings.Cut(words[0], "/")
		k := registry.ServiceKey{Namespace: namespace, Service: service}
		of[k] = append(of[k], Withheld{Instance: words[1], Endpoint: words[2], Reason: words[3]})
	}
	s.member.set(func() { s.member.withheld = of })
	return "ok\n"
}

// request has a request line, then headers, then a body that begins with a brace.
func (s *story) request(d *datadriven.TestData) string {
	line, rest, _ := strings.Cut(d.Input, "\n")
	method, target, _ := strings.Cut(line, " ")
	var headers, body []string
	for line := range strings.Lines(rest) {
		line = strings.TrimSuffix(line, "\n")
		if len(body) > 0 || strings.HasPrefix(line, "{") {
			body = append(body, line)
		} else {
			headers = append(headers, line)
		}
	}
	if d.Cmd == "http" {
		return shown(s.member.call(method, target, strings.Join(body, "\n"), headers...))
	}
	w := httptest.NewRecorder()
	s.member.api.AdminHandler().ServeHTTP(w, request(method, target, strings.Join(body, "\n"), headers...))
	return shown(w)
}

// shown is an answer's status, the headers that mean something, and its body.
func shown(w *httptest.ResponseRecorder) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d %s", w.Code, w.Header().Get("Content-Type"))
	for _, name := range []string{"X-StellMap-Revision", "X-StellMap-Age", "ETag", "Retry-After", "Allow", "WWW-Authenticate", "X-StellMap-Authentication"} {
		if value := w.Header().Get(name); value != "" {
			fmt.Fprintf(&out, "; %s: %s", name, value)
		}
	}
	fmt.Fprintf(&out, "\n%s\n", strings.TrimSuffix(w.Body.String(), "\n"))
	return out.String()
}
