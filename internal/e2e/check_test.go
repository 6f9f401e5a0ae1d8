package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

// checkedInstances are so many that each member of three has some: none is left
// without in all but one of ten million namings.
const checkedInstances = 40

// TestChecksAreHandedOver shows with real members that each makes its share of the
// checks, that the shares of one that is killed, the leader, are made by the others,
// that what flaps meanwhile is held, by whomever it is checked, and let go, and that
// what an operator has said outlasts all of it and registrations too.
func TestChecksAreHandedOver(t *testing.T) {
	t.Parallel() // it waits most of its time
	c := newClusterWith(t, 3, func(m *member) { m.set("[health]\nflap_half_life = \"5s\"\n") })
	s := newCheckedServer(t)
	for i := range checkedInstances {
		c.must(http.MethodPut, instanceURL(c.members[i%3], "checked", fmt.Sprint(i)), s.body("/all"), http.StatusCreated)
	}
	c.must(http.MethodPut, instanceURL(c.members[0], "checked", "flaps"), s.body("/flaps"), http.StatusCreated)
	c.must(http.MethodPut, instanceURL(c.members[0], "checked", "disabled"), s.body("/all"), http.StatusCreated)
	c.must(http.MethodPost, instanceURL(c.members[0], "checked", "disabled")+"/override", `{"status":"disabled"}`, http.StatusOK)

	c.sees(c.members[0], "all to be checked, by all", func([]checked) error {
		sum := 0.0
		for _, m := range c.members {
			n := c.metricOf(m, "stellmap_probe_targets")
			if n == 0 {
				return fmt.Errorf("%s checks none", m.name())
			}
			sum += n
		}
		if sum != checkedInstances+2 {
			return fmt.Errorf("%v checks are made", sum)
		}
		return nil
	})
	s.broken.Store(true)
	c.sees(c.members[0], "all to be critical", all("critical"))
	s.broken.Store(false)
	c.sees(c.members[0], "all to be passing", all("passing"))

	gone := c.leader(c.members...)
	one := c.members[gone.id%3]
	c.kill(gone)
	began := time.Now()
	s.broken.Store(true)
	c.sees(one, "all to be critical, found by those who are left", func(instances []checked) error {
		for _, i := range instances {
			if i.said("by") == fmt.Sprint("member ", gone.id) && i.plain() {
				return fmt.Errorf("%s is as the killed member says", i.ID)
			}
		}
		return all("critical")(instances)
	})
	t.Logf("%v after the leader was killed all of its share was found critical", time.Since(began).Round(10*time.Millisecond))

	c.sees(one, "the one that flaps to be held", func(instances []checked) error { return heldIs(instances, true) })
	s.calm.Store(true)
	s.broken.Store(false)
	began = time.Now()
	c.sees(one, "the one that flapped to be let go", func(instances []checked) error { return heldIs(instances, false) })
	t.Logf("%v after it was quiet it was let go", time.Since(began).Round(10*time.Millisecond))
	c.sees(one, "all to be passing", all("passing"))

	for range 2 { // over one that is there, and over one that was deregistered
		a := c.must(http.MethodPut, instanceURL(one, "checked", "disabled"), s.body("/all"), http.StatusOK, http.StatusCreated)
		if status, err := c.statusOf(one, "checked", "disabled"); err != nil || status != "disabled" {
			t.Fatalf("the instance that an operator has disabled is %s after %s: %v", status, a.body, err)
		}
		c.must(http.MethodDelete, instanceURL(one, "checked", "disabled"), "", http.StatusOK)
	}
}

// set adds to a member's configuration.
func (m *member) set(text string) {
	f, err := os.OpenFile(m.config, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		panic(err)
	}
}

// A checkedServer is what instances say that they are.
type checkedServer struct {
	*httptest.Server
	broken atomic.Bool  // what all of them are
	calm   atomic.Bool  // the one that flaps does not any more
	flaps  atomic.Int64 // its answers: every other is bad
}

func newCheckedServer(t *testing.T) *checkedServer {
	s := &checkedServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		bad := s.broken.Load()
		if q.URL.Path == "/flaps" {
			bad = !s.calm.Load() && s.flaps.Add(1)%2 == 0
		}
		if bad {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// body is of a v2 register that has a path of the server checked once a second.
func (s *checkedServer) body(path string) string {
	port := s.Listener.Addr().String()[strings.LastIndex(s.Listener.Addr().String(), ":")+1:]
	return fmt.Sprintf(`{"endpoints":[{"protocol":"http","host":"127.0.0.1","port":%s}],"leaseTtlSeconds":3600,
		"checks":[{"kind":"http","path":%q,"intervalSeconds":1,"rise":1,"fall":1}]}`, port, path)
}

// checked is an instance as a list shows it.
type checked struct {
	ID         string           `json:"instanceId"`
	Status     string           `json:"status"`
	Conditions []map[string]any `json:"conditions"`
}

// plain says that it is one of the many.
func (i *checked) plain() bool { return i.ID != "flaps" && i.ID != "disabled" }

// said is a field of what a check says of it.
func (i *checked) said(field string) any {
	for _, condition := range i.Conditions {
		if condition["source"] == "check" {
			return condition[field]
		}
	}
	return nil
}

// sees waits until the list of instances is as it should be.
func (c *cluster) sees(m *member, what string, holds func([]checked) error) {
	c.t.Helper()
	url := m.url() + "/api/v2/namespaces/default/services/checked/instances?status=any&fields=instanceId,status,conditions&consistency=stale"
	if _, err := process.Within(c.t.Context(), lookTime, what, func() error {
		a, err := c.call(c.t.Context(), http.MethodGet, url, "")
		if err == nil {
			err = a.want(http.StatusOK)
		}
		if err != nil {
			return err
		}
		var list struct {
			Instances []checked `json:"instances"`
		}
		if err := json.Unmarshal(a.body, &list); err != nil {
			return err
		}
		return holds(list.Instances)
	}); err != nil {
		c.t.Fatal(err)
	}
}

func all(status string) func([]checked) error {
	return func(instances []checked) error {
		found := 0
		for _, i := range instances {
			if i.plain() && i.Status == status {
				found++
			}
		}
		if found != checkedInstances {
			return fmt.Errorf("%d of %d are", found, checkedInstances)
		}
		return nil
	}
}

func heldIs(instances []checked, want bool) error {
	for _, i := range instances {
		if i.ID != "flaps" {
			continue
		}
		if held := i.said("heldUntil") != nil; held != want || !want && i.Status != "passing" {
			return fmt.Errorf("it is %s: %v", i.Status, i.Conditions)
		}
		return nil
	}
	return fmt.Errorf("it is not there")
}
