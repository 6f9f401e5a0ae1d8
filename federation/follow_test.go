package federation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	replicationv1 "github.com/stellmap/stellmap/api/proto/stellmap/replication/v1"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/registrytest"
)

// TestAReplicatorHasWhatTheRegionHas follows from the beginning: all there is, what
// comes after it, and how far that is.
func TestAReplicatorHasWhatTheRegionHas(t *testing.T) {
	m := newRegion(t, 1, registry.HistoryBounds{}).members[0]
	m.restart(Config{Token: token}, func(l *limits) { l.progress = progressEvery }) // at the end there is nothing that is not taken in
	m.put("orders", "a", 80)
	r := newReplicator(t)
	r.follow(m)
	first, err := r.receive()
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "who answers", fmt.Sprint(first.GetIdentity().GetRegion(), first.GetIdentity().GetClusterId(), first.GetIdentity().GetIncarnation(), first.GetIdentity().GetFeatureLevel()), "here100cafe1")
	r.reach(m.put("orders", "b", 80))
	r.reach(m.put("orders", "a", 81))
	r.mustMatch(m, nil)
	r.reach(m.remove("orders", "b"))
	r.mustMatch(m, nil)
	mustEqual(t, "how often all was told", strings.Join(r.reasons, " "), "start")

	for r.progress == nil {
		if _, err := r.receive(); err != nil {
			t.Fatal(err)
		}
	}
	mustEqual(t, "what the mark confirms", fmt.Sprint(r.progress.GetConfirmed(), r.progress.GetCompleteMs(), r.progress.GetAgeMs()), fmt.Sprint(true, registrytest.Start().UnixMilli(), 0))
	eventually(t, "what is taken in", func() bool {
		f := m.exporter.Followers()
		return len(f) == 1 && f[0].Behind == 0 && f[0].WindowBytes == 0
	})
	families, err := m.metrics.Gather()
	if err != nil || len(families) < 8 {
		t.Errorf("%d metrics are counted, %v", len(families), err)
	}
	r.leave()
	eventually(t, "the end", func() bool { return len(m.exporter.Followers()) == 0 })
}

// TestAMarkWithoutALeader is as old as what was confirmed last.
func TestAMarkWithoutALeader(t *testing.T) {
	m := newRegion(t, 1, registry.HistoryBounds{}).members[0]
	r := newReplicator(t)
	r.follow(m)
	r.reach(m.put("orders", "a", 80))
	m.region.log.Set(func() { m.region.log.Fault = registry.ErrNoLeader })
	r.follow(m)
	r.progress = nil // the leader's may have come already
	for r.progress == nil {
		if _, err := r.receive(); err != nil {
			t.Fatal(err)
		}
	}
	mustEqual(t, "the age of the mark", r.progress.GetAgeMs(), 1500)
	for name, fresh := range map[string]time.Time{"what was confirmed long ago": registrytest.Start().Add(-leaderlessMax - time.Millisecond), "nothing": {}} {
		m.region.log.Set(func() { m.region.log.FreshAt = fresh })
		r.follow(m)
		mustEqual(t, "what there is of a member that knows of "+name, r.refused(), "Unavailable NO_LEADER")
	}
	r.hello.After = nil
	r.follow(m)
	mustEqual(t, "what there is without a leader for one who has nothing", r.refused(), "Unavailable NO_LEADER")
}

// TestWhoMayFollow shows that nobody is answered who has not shown the token.
func TestWhoMayFollow(t *testing.T) {
	m := newRegion(t, 1, registry.HistoryBounds{}).members[0]
	for name, c := range map[string]struct {
		config        Config
		authorization string
		want          string
	}{
		"the token":               {Config{Token: token}, "Bearer " + token, ""},
		"the token, other case":   {Config{Token: token}, "bearer " + token, ""},
		"none":                    {Config{Token: token}, "", "Unauthenticated UNAUTHORIZED"},
		"another":                 {Config{Token: token}, "Bearer another token of tests", "Unauthenticated UNAUTHORIZED"},
		"a part of it":            {Config{Token: token}, "Bearer " + token[:10], "Unauthenticated UNAUTHORIZED"},
		"an empty one":            {Config{Token: token}, "Bearer ", "Unauthenticated UNAUTHORIZED"},
		"another scheme":          {Config{Token: token}, "Basic " + token, "Unauthenticated UNAUTHORIZED"},
		"a token, though open":    {Config{Token: token, Open: true}, "", "Unauthenticated UNAUTHORIZED"},
		"where there is no token": {Config{}, "Bearer ", "PermissionDenied REPLICATION_OFF"},
		"where all are at home":   {Config{Open: true}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m.restart(c.config, nil)
			r := newReplicator(t)
			r.open(m, c.authorization)
			if c.want != "" {
				mustEqual(t, "the answer", r.refused(), c.want)
				return
			}
			r.reach(m.put("orders", "a", 80))
		})
	}
}

// TestNobodyFollowsInTheNameOfAnother shows that who has not proved to be of the region
// that he names is not answered, and that the name of a replicator is its region's only.
func TestNobodyFollowsInTheNameOfAnother(t *testing.T) {
	m := newRegion(t, 1, registry.HistoryBounds{}).members[0]
	m.restart(Config{Token: token, Proves: func(_ context.Context, region string) error {
		if region == "forged" {
			return errors.New("the certificate is of another")
		}
		return nil
	}}, nil)
	at := m.put("orders", "a", 80)
	from := func(region string) *replicator {
		r := newReplicator(t)
		r.hello.Region = region
		r.follow(m)
		return r
	}
	mustEqual(t, "who has not proved it", from("forged").refused(), "PermissionDenied NOT_PROVED")
	b, c := from("b"), from("c")
	b.reach(at)
	c.reach(at)
	b.reach(m.put("orders", "b", 80)) // c, which is called the same, has not taken its place
	mustEqual(t, "those who follow", len(m.exporter.Followers()), 2)
	mirror := from("") // it is of no region, and names none
	mirror.reach(at)
}

// TestWhatAHelloMustSay is the table of beginnings that are refused.
func TestWhatAHelloMustSay(t *testing.T) {
	m := newRegion(t, 1, registry.HistoryBounds{}).members[0]
	hello := func(change func(*replicationv1.Hello)) *replicationv1.FollowRequest {
		h := &replicationv1.Hello{Name: "mirror"}
		change(h)
		return &replicationv1.FollowRequest{Kind: &replicationv1.FollowRequest_Hello{Hello: h}}
	}
	selected := func(n int) (out []*replicationv1.Selection) {
		for range n {
			out = append(out, &replicationv1.Selection{Namespace: "prod"})
		}
		return out
	}
	for name, c := range map[string]struct {
		says *replicationv1.FollowRequest
		want string
	}{
		"another cluster":       {hello(func(h *replicationv1.Hello) { h.SourceClusterId = 200 }), "FailedPrecondition WRONG_CLUSTER"},
		"another region":        {hello(func(h *replicationv1.Hello) { h.SourceRegion = "there" }), "FailedPrecondition WRONG_CLUSTER"},
		"itself":                {hello(func(h *replicationv1.Hello) { h.Region, h.ClusterId = "here", 100 }), "FailedPrecondition ITSELF"},
		"no name":               {hello(func(h *replicationv1.Hello) { h.Name = "" }), "InvalidArgument BAD_REQUEST hello.name"},
		"a region that is none": {hello(func(h *replicationv1.Hello) { h.Region = "a b" }), "InvalidArgument BAD_REQUEST hello.region"},
		"no namespace":          {hello(func(h *replicationv1.Hello) { h.Selections = []*replicationv1.Selection{{Namespace: "prod"}, {}} }), "InvalidArgument BAD_REQUEST hello.selections[1].namespace"},
		"no such service": {hello(func(h *replicationv1.Hello) {
			h.Selections = []*replicationv1.Selection{{Namespace: "prod", Services: []string{"a b"}}}
		}), "InvalidArgument BAD_REQUEST hello.selections[0].service"},
		"no such labels": {hello(func(h *replicationv1.Hello) {
			h.Selections = []*replicationv1.Selection{{Namespace: "*", Services: []string{"pay-*"}, Labels: "tier in"}}
		}), "InvalidArgument BAD_REQUEST hello.selections[0].labels"},
		"too many of them": {hello(func(h *replicationv1.Hello) { h.Selections = selected(1025) }), "InvalidArgument BAD_REQUEST hello.selections"},
		"a field not known": {hello(func(h *replicationv1.Hello) {
			h.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
		}), "InvalidArgument BAD_REQUEST hello.99"},
		"no hello": {&replicationv1.FollowRequest{Kind: &replicationv1.FollowRequest_Ack{Ack: &replicationv1.Ack{Sequence: 1}}}, "InvalidArgument BAD_REQUEST hello"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReplicator(t)
			r.hello = c.says.GetHello()
			if r.hello != nil {
				r.follow(m)
				mustEqual(t, "the answer", r.refused(), c.want)
				return
			}
			r.hello = &replicationv1.Hello{Name: "mirror"}
			r.follow(m)
			r.say(hello(func(*replicationv1.Hello) {}))
			mustEqual(t, "the answer to a second hello", r.refused(), "InvalidArgument BAD_REQUEST ack")
		})
	}
	r := newReplicator(t)
	r.lazy = true
	r.follow(m)
	r.ack(1000)
	mustEqual(t, "the answer to what was not told", r.refused(), "InvalidArgument BAD_REQUEST ack.sequence")
	m.restart(Config{Token: token}, func(l *limits) { l.hello = time.Millisecond })
	stream, err := replicationv1.NewReplicationServiceClient(m.conn).Follow(withToken())
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	mustEqual(t, "the answer to silence", shown(err), "DeadlineExceeded NO_HELLO")
}

// TestPlacesAreFew shows that one more than there are places is refused, and that a
// replicator that comes back has the place that it had.
func TestPlacesAreFew(t *testing.T) {
	m := newRegion(t, 1, registry.HistoryBounds{}).members[0]
	m.restart(Config{Token: token}, func(l *limits) { l.followers = 2 })
	at := m.put("orders", "a", 80)
	var all []*replicator
	for _, name := range []string{"one", "two", "three"} {
		r := newReplicator(t)
		r.hello.Name = name
		all = append(all, r)
	}
	all[0].follow(m)
	all[0].reach(at)
	all[1].follow(m)
	all[1].reach(at)
	all[2].follow(m)
	mustEqual(t, "what the third is told", all[2].refused(), "ResourceExhausted BUSY")
	again := newReplicator(t)
	again.hello.Name = "one"
	again.follow(m)
	again.reach(at)
	mustEqual(t, "what the first is told", all[0].refused(), "Aborted REPLACED")
	all[1].reach(m.put("orders", "b", 80))
	mustEqual(t, "those who follow", len(m.exporter.Followers()), 2)
}

// TestASlowReplicatorIsBounded shows that nobody is told more than a window ahead of
// what he takes in, and that who takes nothing in is cut off and can go on.
func TestASlowReplicatorIsBounded(t *testing.T) {
	m := newRegion(t, 1, registry.HistoryBounds{}).members[0]
	m.restart(Config{Token: token}, func(l *limits) { l.windowRevisions, l.pageInstances = 8, 1 })
	r := newReplicator(t)
	r.follow(m)
	r.reach(m.put("orders", "a", 80))
	r.lazy = true
	for n := range 100 {
		m.put("orders", fmt.Sprint("a", n%7), 81+n)
	}
	for range 8 { // a window
		if _, err := r.receive(); err != nil {
			t.Fatal(err)
		}
	}
	f := m.exporter.Followers()[0]
	if ahead := f.Sent - f.Acked; ahead > 8 || f.Behind < 90 || f.WindowBytes > 8<<10 {
		t.Errorf("it was told %d revisions ahead of %d, %d bytes", ahead, f.Behind, f.WindowBytes)
	}
	m.restart(Config{Token: token}, func(l *limits) { l.ack = 20 * time.Millisecond })
	r.follow(m)
	mustEqual(t, "what one is told who takes nothing in", r.refused(), "DeadlineExceeded SLOW")
	m.restart(Config{Token: token}, nil)
	r.lazy = false
	r.follow(m)
	r.reach(m.Machine.Revision())
	r.mustMatch(m, nil)
	mustEqual(t, "how often all was told", strings.Join(r.reasons, " "), "start")
}

// TestAllThereIsIsOfOneRevision shows what comes of changes in the middle of a full
// sync, of more of them than the history keeps.
func TestAllThereIsIsOfOneRevision(t *testing.T) {
	m := newRegion(t, 1, registry.HistoryBounds{Events: 6}).members[0]
	m.restart(Config{Token: token}, func(l *limits) { l.windowRevisions, l.pageInstances = 1, 1 })
	for n := range 20 {
		m.put("orders", fmt.Sprint("a", n), 80)
	}
	pinned := newReplicator(t)
	pinned.hello.Name = "before"
	pinned.follow(m)
	pinned.reach(m.Machine.Revision())
	r := newReplicator(t)
	r.follow(m)
	for len(r.syncing) < 3 {
		if _, err := r.receive(); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 20 {
		m.remove("orders", fmt.Sprint("a", n))
		m.put("pay", fmt.Sprint("b", n), 90)
	}
	for r.syncing != nil {
		if _, err := r.receive(); err != nil {
			t.Fatal(err)
		}
	}
	for k, i := range pinned.has {
		if r.has[k] == nil || inWords(r.has[k]) != inWords(i) {
			t.Fatalf("%s was %v, and is told as %v", k, i, r.has[k])
		}
	}
	mustEqual(t, "what was told of one revision", len(r.has), 20)
	r.reach(m.Machine.Revision())
	r.mustMatch(m, nil)
	mustEqual(t, "how often all was told", strings.Join(r.reasons, " "), "start compacted")
	m.restart(Config{Token: token}, func(l *limits) { l.syncHeld = 1 })
	r.hello.After = nil
	r.follow(m)
	mustEqual(t, "the end of what holds too much", r.refused(), "Aborted SYNC_TOO_LONG")
}

// TestLargeRevisionsComeInParts shows that a part that ends within a revision has no
// cursor, so that nobody goes on from there.
func TestLargeRevisionsComeInParts(t *testing.T) {
	m := newRegion(t, 1, registry.HistoryBounds{}).members[0]
	m.restart(Config{Token: token}, func(l *limits) { l.pageInstances, l.windowBytes = 3, 100 })
	r := newReplicator(t)
	r.follow(m)
	r.reach(m.put("orders", "a", 80))
	var items []registry.BatchItem
	for n := range 10 {
		items = append(items, registry.BatchItem{Register: &registry.Registration{
			Namespace: "prod", Service: "orders", ID: fmt.Sprint("b", n), Endpoints: []registry.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 80}},
		}})
	}
	if _, err := m.registry.Batch(context.Background(), "", items); err != nil {
		t.Fatal(err)
	}
	parts := 0
	for r.at < uint64(m.Machine.Revision()) {
		one, err := r.receive()
		if err != nil {
			t.Fatal(err)
		}
		if one.GetChanges() != nil {
			parts++
		}
		if len(r.held) > 0 && len(r.has) != 1 {
			t.Fatalf("half a revision shows")
		}
	}
	mustEqual(t, "the parts of a revision", parts, 4)
	r.mustMatch(m, nil)
}

// TestACursorIsGoodWhereItIsFrom shows what is told to one who goes on: at another
// member, one that was started anew, one that has installed a snapshot; and with a
// cursor of another cluster, or of another selection.
func TestACursorIsGoodWhereItIsFrom(t *testing.T) {
	region := newRegion(t, 3, registry.HistoryBounds{Events: 50})
	a, b, c := region.members[0], region.members[1], region.members[2]
	r := newReplicator(t)
	r.follow(a)
	r.reach(a.put("orders", "a", 80))
	c.Leave()
	for n := range 10 {
		a.put("orders", fmt.Sprint("b", n), 80)
	}
	b.restart(Config{Token: token}, nil)
	r.follow(b)
	r.reach(a.remove("orders", "b3"))
	r.mustMatch(b, nil)
	a.put("orders", "c", 80)
	r.follow(c)
	c.Install(a.Member)
	r.reach(a.put("orders", "d", 80))
	r.mustMatch(a, nil)
	mustEqual(t, "how often all was told", strings.Join(r.reasons, " "), "start")

	r.hello.Selections = []*replicationv1.Selection{{Namespace: "prod", Services: []string{"orders"}}}
	r.follow(a)
	r.reach(a.put("pay", "a", 80))
	r.mustMatch(a, func(i *registry.Instance) bool { return i.Service == "orders" })
	r.hello.After.Incarnation = "beef"
	r.follow(a)
	r.reach(a.put("orders", "e", 80))
	r.hello.After.Revision += 1000
	r.follow(a)
	r.reach(a.put("orders", "f", 80))
	for n := range 100 {
		a.put("orders", "g", 80+n)
	}
	r.follow(b)
	r.reach(a.Machine.Revision())
	r.mustMatch(b, func(i *registry.Instance) bool { return i.Service == "orders" })
	mustEqual(t, "how often all was told, and why", strings.Join(r.reasons, " "), "start selections unknown_revision unknown_revision compacted")
}

// TestSecretsStayAtHome holds every field of a record against what is known to be told:
// whoever adds one has to decide.
func TestSecretsStayAtHome(t *testing.T) {
	told := map[string]bool{
		"format": true, "spec": true, "registered_at_ms": true, "last_heartbeat_ms": true, "status": true, "expired_at_ms": true, "revision": true,
		"counter": true, "lease": true, "status_since_ms": true, "conditions": true, "lease_id": true, "token": false, "number": false, "imported": false,
	}
	m := newRegion(t, 1, registry.HistoryBounds{}).members[0]
	_, err := m.registry.Register(context.Background(), "", registry.Registration{
		Namespace: "prod", Service: "orders", ID: "a", LeaseToken: "a-lease-token-of-the-tests", Endpoints: []registry.Endpoint{{Protocol: "http", Host: "10.0.0.1", Port: 80}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := newReplicator(t)
	r.follow(m)
	r.reach(m.Machine.Revision())
	record := r.has["prod/orders/a"].GetRecord()
	fields := (&recordv1.InstanceRecord{}).ProtoReflect().Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		tell, known := told[string(f.Name())]
		if !known || !tell && record.ProtoReflect().Has(f) {
			t.Errorf("is %s of an instance for other clusters? It is told: %v", f.Name(), record.ProtoReflect().Has(f))
		}
	}
	if record.GetLease() == 0 || record.GetSpec().GetLeaseTtlMs() == 0 || record.GetRevision() == 0 {
		t.Errorf("the record is not as it is stored: %v", record)
	}
}

// TestReplicatorsUnderRandomChanges follows random selections at members that come and
// go, over streams that break anywhere: who has come to a revision has what the region
// had then.
func TestReplicatorsUnderRandomChanges(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	region := newRegion(t, 2, registry.HistoryBounds{Events: 40 + random.IntN(200)})
	shrink := func(l *limits) {
		l.windowRevisions, l.pageInstances, l.pageBytes = 1+random.IntN(20), 1+random.IntN(10), 1+random.IntN(2000)
	}
	for _, m := range region.members {
		m.restart(Config{Token: token}, shrink)
	}
	var all []*replicator
	for n, selections := range [][]*replicationv1.Selection{nil, {{Namespace: "prod", Services: []string{"s1", "s2"}}}, {{Namespace: "prod"}}} {
		r := newReplicator(t)
		r.hello.Name, r.hello.Selections = fmt.Sprint("r", n), selections
		all = append(all, r)
	}
	a := region.members[0]
	for range 30 {
		for range random.IntN(40) {
			if service, id := fmt.Sprint("s", random.IntN(4)), fmt.Sprint("i", random.IntN(12)); random.IntN(3) == 0 {
				a.remove(service, id)
			} else {
				a.put(service, id, 80+random.IntN(3))
			}
		}
		if random.IntN(4) == 0 {
			region.members[1].restart(Config{Token: token}, shrink)
		}
		for n, r := range all {
			r.follow(region.members[random.IntN(2)])
			if random.IntN(2) == 0 { // and the stream breaks somewhere
				for range random.IntN(8) {
					if r.at >= uint64(a.Machine.Revision()) {
						break
					}
					if _, err := r.receive(); err != nil {
						t.Fatal(shown(err))
					}
				}
				continue
			}
			r.reach(a.Machine.Revision())
			r.mustMatch(a, func(i *registry.Instance) bool { return n != 1 || i.Service == "s1" || i.Service == "s2" })
		}
	}
	syncs := 0
	for _, r := range all {
		syncs += len(r.reasons)
	}
	t.Logf("%d times all there was was told", syncs)
}

// TestReasonsAreTheRegistrys shows that why all there is is told has its number in messages, too.
func TestReasonsAreTheRegistrys(t *testing.T) {
	for number, name := range replicationv1.Begin_Reason_name {
		if number > 0 {
			mustEqual(t, "the name of reason "+name, "REASON_"+strings.ToUpper(registry.Resync(number).String()), name)
		}
	}
	mustEqual(t, "the reason after the last, which is for watches alone", registry.Resync(len(replicationv1.Begin_Reason_name)), registry.ResyncAccess)
}
