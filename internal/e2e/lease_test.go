package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stellmap/stellmap/internal/process"
)

const (
	shortTTL = 2 * time.Second
	// lookTime is for what has to come about, however slow the machine is; how soon it does is printed.
	lookTime = 30 * time.Second
)

// leasedBody is the body of a v2 register with a short lease.
func leasedBody(port int) string {
	return fmt.Sprintf(`{"endpoints":[{"name":"http","protocol":"http","host":"127.0.0.1","port":%d}],"leaseTtlSeconds":%d}`, port, int(shortTTL.Seconds()))
}

// statusOf is an instance's status as a member has it; "gone" when it has none.
func (c *cluster) statusOf(m *member, service, id string) (string, error) {
	a, err := c.call(c.t.Context(), http.MethodGet, instanceURL(m, service, id), "")
	if err != nil {
		return "", err
	}
	if a.status == http.StatusNotFound {
		return "gone", nil
	}
	if err := a.want(http.StatusOK); err != nil {
		return "", err
	}
	var i struct {
		Status string `json:"status"`
	}
	err = json.Unmarshal(a.body, &i)
	return i.Status, err
}

// becomes waits until a member shows an instance in a status.
func (c *cluster) becomes(m *member, service, id, want string) {
	c.t.Helper()
	if _, err := process.Within(c.t.Context(), lookTime, fmt.Sprintf("%s of %s to be %s", id, service, want), func() error {
		got, err := c.statusOf(m, service, id)
		if err == nil && got != want {
			err = fmt.Errorf("it is %s", got)
		}
		return err
	}); err != nil {
		c.t.Fatal(err)
	}
}

// TestALeaseRunsOutAndIsRevived shows on real members that a lease which nobody
// renews is never over before its time, also when the leader is killed, that the
// instance comes back with a late heartbeat, whichever member takes it, and that
// one which was deregistered does not.
func TestALeaseRunsOutAndIsRevived(t *testing.T) {
	t.Parallel() // it waits most of its time
	c := newCluster(t, 3)
	leader := c.leader(c.members...)
	one, other := c.members[leader.id%3], c.members[(leader.id+1)%3]
	runsOut := func(id string, meanwhile func()) {
		t.Helper()
		began := time.Now()
		c.must(http.MethodPut, instanceURL(one, "leased", id), leasedBody(9000), http.StatusCreated)
		meanwhile()
		c.becomes(one, "leased", id, "expired")
		took := time.Since(began)
		if took < shortTTL {
			t.Fatalf("the lease of %s, of %v, was over within %v", id, shortTTL, took)
		}
		t.Logf("the lease of %s, of %v, was over after %v", id, shortTTL, took.Round(10*time.Millisecond))
		c.must(http.MethodPost, instanceURL(other, "leased", id)+"/renew", "", http.StatusOK)
		c.becomes(one, "leased", id, "passing")
	}
	runsOut("calm", func() {})
	c.must(http.MethodDelete, instanceURL(other, "leased", "calm"), "", http.StatusOK)
	c.must(http.MethodPost, instanceURL(one, "leased", "calm")+"/renew", "", http.StatusNotFound)
	runsOut("orphaned", func() { c.kill(leader) })
}

// TestOneLeaseForAProcess shows that a process with many services renews one lease
// for all of them, at any member and across the death of the leader, and that its
// death takes them all.
func TestOneLeaseForAProcess(t *testing.T) {
	t.Parallel() // it waits most of its time
	const instances = 20
	c := newCluster(t, 3)
	leader := c.leader(c.members...)
	one, other := c.members[leader.id%3], c.members[(leader.id+1)%3]
	var lease struct {
		ID string `json:"leaseId"`
	}
	granted := c.must(http.MethodPost, one.url()+"/api/v2/leases", fmt.Sprintf(`{"ttlSeconds":%d}`, int(shortTTL.Seconds())), http.StatusCreated)
	if err := json.Unmarshal(granted.body, &lease); err != nil {
		t.Fatal(err)
	}
	service := func(n int) string { return fmt.Sprint("part-", n) }
	body := fmt.Sprintf(`{"leaseId":%q,"endpoints":[{"name":"http","protocol":"http","host":"127.0.0.1","port":9000}]}`, lease.ID)
	holding, die := context.WithCancel(t.Context())
	var holder sync.WaitGroup
	defer func() { // before the test ends, whatever ends it
		die()
		holder.Wait()
	}()
	holder.Go(func() {
		for n := 0; holding.Err() == nil; n++ {
			at := []*member{one, other}[n%2]
			if _, err := c.call(holding, http.MethodPost, at.url()+"/api/v2/leases/"+lease.ID+"/renew", ""); err != nil {
				t.Logf("a renewal, of which the next is soon: %v", err)
			}
			select {
			case <-holding.Done():
			case <-time.After(shortTTL / 6):
			}
		}
	})
	for n := range instances {
		c.must(http.MethodPut, instanceURL(one, service(n), "a"), body, http.StatusCreated)
	}
	c.kill(leader)
	<-time.After(3 * shortTTL)
	for n := range instances {
		if got, err := c.statusOf(other, service(n), "a"); err != nil || got != "passing" {
			t.Fatalf("part %d is %s: %v", n, got, err)
		}
	}
	die()
	holder.Wait()
	for n := range instances {
		c.becomes(one, service(n), "a", "expired")
	}
	c.must(http.MethodPost, other.url()+"/api/v2/leases/"+lease.ID+"/renew", "", http.StatusNotFound)
}

// TestAnOutageOfTheWholeClusterEndsNoLease shows that after all members were down
// for five times the TTL nobody is lost who renews when they are back.
func TestAnOutageOfTheWholeClusterEndsNoLease(t *testing.T) {
	t.Parallel() // it waits most of its time
	const instances = 100
	c := newCluster(t, 3)
	all := batchOf(0, instances, func(n int) string { // in one call: none runs out before the last is there
		return fmt.Sprintf(`{"register":{"namespace":"default","service":"leased","instanceId":"%d","leaseToken":%q,"endpoints":[{"name":"http","protocol":"http","host":"127.0.0.1","port":%d}],"leaseTtlSeconds":%d}}`,
			n, leaseToken, 9000+n, int(shortTTL.Seconds()))
	})
	if a := c.must(http.MethodPost, c.members[0].url()+"/api/v2/batch", all, http.StatusOK); !strings.Contains(string(a.body), `"failed":0`) {
		t.Fatalf("the registrations are answered %.300s", a.body)
	}
	c.kill(c.members...)
	<-time.After(5 * shortTTL)
	for _, m := range c.members {
		c.start(m)
	}
	holding, stop := context.WithCancel(t.Context())
	var holders sync.WaitGroup
	defer func() { // before the test ends, whatever ends it
		stop()
		holders.Wait()
	}()
	for i := range instances {
		holders.Go(func() { c.holdOn(holding, i) })
	}
	c.mustBeReady()
	<-time.After(3 * shortTTL)
	for i := range instances {
		if got, err := c.statusOf(c.members[i%3], "leased", fmt.Sprint(i)); err != nil || got != "passing" {
			t.Errorf("instance %d is %s: %v", i, got, err)
		}
	}
	stop()
	holders.Wait()
	for _, m := range c.members {
		if n := c.metricOf(m, "stellmap_registry_expirations_total"); n != 0 {
			t.Errorf("%s has let %v leases run out", m.name(), n)
		}
	}
}

// holdOn renews an instance's lease three times in its time, at any member.
func (c *cluster) holdOn(ctx context.Context, i int) {
	for n := i; ctx.Err() == nil; n++ {
		pause := shortTTL / 3
		a, err := c.call(ctx, http.MethodPost, instanceURL(c.members[n%3], "leased", fmt.Sprint(i))+"/renew", "")
		switch {
		case err == nil && a.status == http.StatusNotFound:
			c.t.Errorf("instance %d was lost: %s", i, a.body)
			return
		case err != nil || a.status != http.StatusOK:
			pause = shortTTL / 20 // another member
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// metricOf reads one value of a member's metrics.
func (c *cluster) metricOf(m *member, name string) float64 {
	c.t.Helper()
	a := c.must(http.MethodGet, m.url()+"/metrics", "", http.StatusOK)
	for line := range strings.Lines(string(a.body)) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				c.t.Fatal(err)
			}
			return f
		}
	}
	c.t.Fatalf("%s has no metric %s", m.name(), name)
	return 0
}
