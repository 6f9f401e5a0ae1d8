package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// TestReportsAgainstAModel has callers report instances at random, mad ones among
// them, under leaders and policies that change, and holds what is said of instances
// against a list of all that was reported. Nothing is said without a quorum, for longer
// than the policy has it, or of more than its share of the service.
func TestReportsAgainstAModel(t *testing.T) {
	random := newRandom(t)
	seen := make(map[Status]int)
	for range 6 {
		m := newReportModel(t, random)
		for range 1500 {
			m.step()
		}
		for status, n := range m.begun {
			seen[status] += n
		}
		m.allFallSilent()
	}
	if seen[StatusWarning] == 0 || seen[StatusCritical] == 0 {
		t.Errorf("not all was brought about: %v", seen)
	}
	t.Logf("brought about: %v", seen)
}

type reportModel struct {
	t      *testing.T
	random *rand.Rand
	clock  *manualClock
	member *member
	watch  *Watch
	size   int
	rules  ReportRules
	said   []reportSaid // all that was reported and not taken back, by whom it may
	begun  map[Status]int
}

type reportSaid struct {
	id, name string
	from     string
	at       time.Time
	version  string // of the instance, which tells one process from another
}

func newReportModel(t *testing.T, random *rand.Rand) *reportModel {
	clock := newManualClock()
	m := &reportModel{t: t, random: random, clock: clock, member: newMember(t, clock), size: 1 + random.IntN(9), begun: make(map[Status]int)}
	m.member.carry()
	m.watch = m.member.machine.Watch(m.member.machine.Revision())
	for n := range m.size {
		m.register(n)
	}
	m.policy()
	m.follow()
	return m
}

func (m *reportModel) register(n int) {
	r := reg("prod", "pay", fmt.Sprint("i", n), "10.1.0.1", int32(1+n))
	r.LeaseTTLSeconds = 86_400
	r.Version = fmt.Sprint(m.random.IntN(2))
	m.member.register(r)
}

func (m *reportModel) policy() {
	p := Policy{Reports: &Reports{Effect: []string{"warning", "critical"}[m.random.IntN(2)], Quorum: new(int64(2 + m.random.IntN(3))),
		WindowSeconds: new(int64(1 + m.random.IntN(20))), LastsSeconds: new(int64(1 + m.random.IntN(20)))}}
	if p.Reports.Effect == "critical" {
		p.Reports.MaxPercent = new(int64(1 + m.random.IntN(100)))
	}
	if m.random.IntN(5) == 0 {
		p.Reports = nil
	}
	if _, err := m.member.registry.PutPolicy(context.Background(), "", ServiceKey{"prod", "pay"}, p, Writing{}); err != nil {
		m.t.Fatal(err)
	}
	m.rules = p.ReportRules()
	m.follow()
}

// step is half a second in which something may happen.
func (m *reportModel) step() {
	switch m.random.IntN(120) {
	case 0:
		m.policy()
	case 1:
		m.member.machine.Follow()
		m.member.lead()
		m.said = nil
	case 2:
		m.register(m.random.IntN(m.size))
		m.follow()
	}
	for range m.random.IntN(6) {
		m.report()
	}
	m.member.pass(m.clock, expiryTick)
	m.clock.advance(expiryTick)
	m.follow()
	for _, i := range m.member.machine.Service(ServiceKey{"prod", "pay"}).Instances {
		said, found := i.Condition(SourceReports, "")
		if late := m.clock.Now().Sub(time.UnixMilli(said.Until)); found && late > reapTick+2*expiryTick {
			m.t.Fatalf("what is said of %s should have ended %v ago: %+v", i.ID, late, said)
		}
	}
}

// report is one by a caller who is sane, or by a host that has gone mad.
func (m *reportModel) report() {
	n := 1 + m.random.IntN(5)
	one := reportSaid{id: fmt.Sprint("i", m.random.IntN(m.size)), name: fmt.Sprint("r", n), from: fmt.Sprint("10.0.0.", n), at: m.clock.Now()}
	one.version = m.member.machine.Instance(InstanceKey{"prod", "pay", one.id}).Version
	if m.random.IntN(3) == 0 {
		one.name, one.from = fmt.Sprint("mad", m.random.IntN(100)), "10.0.0.66"
	}
	report := Report{Reporter: one.name, Outcome: ReportFailure, From: netip.MustParseAddr(one.from)}
	m.said = slices.DeleteFunc(m.said, func(o reportSaid) bool { return o.id == one.id && o.name == one.name && o.from == one.from })
	if m.random.IntN(6) == 0 {
		report.Outcome = ReportSuccess
	} else {
		m.said = append(m.said, one)
	}
	_, err := m.member.registry.Report(context.Background(), ref("prod", "pay", one.id), report)
	switch {
	case err == nil: // whoever takes it sees that another process is there, and that one is not accused of what the former did
		m.said = slices.DeleteFunc(m.said, func(o reportSaid) bool { return o.id == one.id && o.version != one.version })
	case !errors.Is(err, ErrReportRate):
		m.t.Fatal(err)
	}
	for m.member.registry.judge(context.Background()) {
	}
	m.follow()
}

// follow looks at what has been said of instances.
func (m *reportModel) follow() {
	for {
		batch, more, err := m.watch.Poll()
		if err != nil {
			m.t.Fatal(err)
		}
		if !more {
			return
		}
		for _, e := range batch.Events {
			if e.Instance != nil {
				m.look(e.Instance, e.Previous)
			}
		}
	}
}

func (m *reportModel) look(i, before *Instance) {
	said, found := i.Condition(SourceReports, "")
	if before != nil {
		if old, stood := before.Condition(SourceReports, ""); stood && old == said {
			return
		}
	}
	if !found {
		return
	}
	m.begun[said.Status]++
	if reporters := m.reporters(i.ID); said.Status != m.rules.Effect || reporters < m.rules.Quorum {
		m.t.Fatalf("%s is said to be %s by %d reporters, under %+v", i.ID, said.Status, reporters, m.rules)
	}
	if lasts := time.UnixMilli(said.Until).Sub(m.clock.Now()); lasts > m.rules.Lasts {
		m.t.Fatalf("what is said of %s lasts for %v, under %+v", i.ID, lasts, m.rules)
	}
	if accused := m.accused(); said.Status == StatusCritical && accused*100 > m.rules.Percent*m.size {
		m.t.Fatalf("%d of %d are critical by reports, under %+v", accused, m.size, m.rules)
	}
}

// reporters are the hosts that have reported an instance of late, the mad one counted once.
func (m *reportModel) reporters(id string) int {
	hosts := make(map[string]bool)
	for _, one := range m.said {
		if one.id == id && m.clock.Now().Sub(one.at) < m.rules.Window {
			hosts[one.from] = true
		}
	}
	return len(hosts)
}

func (m *reportModel) accused() (n int) {
	for _, i := range m.member.machine.Service(ServiceKey{"prod", "pay"}).Instances {
		if i.Status == StatusCritical {
			n++
		}
	}
	return n
}

// allFallSilent shows that everything ends by itself.
func (m *reportModel) allFallSilent() {
	m.member.pass(m.clock, 25*time.Second)
	if s := m.member.machine.Service(ServiceKey{"prod", "pay"}); int(s.Statuses[StatusPassing]) != m.size {
		m.t.Fatalf("of %d instances %v", m.size, s.Statuses)
	}
}

// TestVerdictsAreFenced shows that a verdict does nothing that the policy, as it is
// when the entry is applied, does not want; nor one of a deposed leader, or on another lease.
func TestVerdictsAreFenced(t *testing.T) {
	for name, change := range map[string]func(m *member, j *recordv1.JudgeReports){
		"a deposed leader":        func(m *member, j *recordv1.JudgeReports) { j.Term-- },
		"another lease":           func(m *member, j *recordv1.JudgeReports) { j.Items[0].Lease++ },
		"no quorum":               func(m *member, j *recordv1.JudgeReports) { j.Items[0].Reporters = 2 },
		"no instance":             func(m *member, j *recordv1.JudgeReports) { j.Items[0].Key.Id = "z" },
		"nothing that stands":     func(m *member, j *recordv1.JudgeReports) { j.Items[0].Over = true },
		"a policy that went":      func(m *member, j *recordv1.JudgeReports) { m.putPolicy(`{}`) },
		"a policy that wants all": func(m *member, j *recordv1.JudgeReports) { m.putPolicy(`{"reports":{"effect":"critical","quorum":4}}`) },
		"no room": func(m *member, j *recordv1.JudgeReports) {
			m.putPolicy(`{"reports":{"effect":"critical","maxPercent":49}}`)
		},
		"who is not called": func(m *member, j *recordv1.JudgeReports) {
			if _, err := m.registry.Drain(context.Background(), "", ref("prod", "orders", "a"), Drain{}); err != nil {
				t.Fatal(err)
			}
		},
		"": func(*member, *recordv1.JudgeReports) {}, // it is made
	} {
		m := newMember(t, newManualClock())
		m.register(reg("prod", "orders", "a", "10.0.0.1", 80))
		m.register(reg("prod", "orders", "b", "10.0.0.2", 80))
		m.putPolicy(`{"reports":{"effect":"critical"}}`)
		a := m.machine.Instance(InstanceKey{"prod", "orders", "a"})
		j := &recordv1.JudgeReports{Term: m.term, Items: []*recordv1.ReportVerdict{{Key: keyToRecord(a.Key()), Lease: uint64(a.Lease), Reporters: 3}}}
		change(m, j)
		applied, err := m.Propose(context.Background(), "", encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_JudgeReports{JudgeReports: j}}))
		if err != nil {
			t.Fatal(err)
		}
		reply, err := decodeReply(applied.Reply)
		if err != nil {
			t.Fatal(err)
		}
		made := reply.GetCode() == recordv1.Result_CODE_OK
		_, stands := m.machine.Instance(a.Key()).Condition(SourceReports, "")
		if want := name == ""; made != want || stands != want {
			t.Errorf("%s: the verdict is answered with %v, and it stands: %v", name, reply.GetCode(), stands)
		}
	}
}

func (m *member) putPolicy(text string) {
	m.tb.Helper()
	if _, err := m.registry.PutPolicy(context.Background(), "", ServiceKey{"prod", "orders"}, policyOf(m.tb.(*testing.T), text), Writing{}); err != nil {
		m.tb.Fatal(err)
	}
}

// TestVerdictsOfABatchShareTheRoom shows that those which are judged together take no
// more of a service than one by one, and that what was held back is judged when it is reported again.
func TestVerdictsOfABatchShareTheRoom(t *testing.T) {
	m := newMember(t, newManualClock())
	m.carry()
	for n := range 4 {
		m.register(reg("prod", "orders", fmt.Sprint("i", n), "10.0.0.1", int32(80+n)))
	}
	m.putPolicy(`{"reports":{"effect":"critical","maxPercent":25}}`)
	for n := range 4 {
		for r := range 3 {
			m.report(t, fmt.Sprint("i", n), fmt.Sprint("r", r), fmt.Sprint("10.0.0.", r+1))
		}
	}
	for m.registry.judge(context.Background()) {
	}
	mustEqual(t, "the entries with verdicts", m.logged()["judge_reports"], 1)
	mustEqual(t, "who is critical", m.machine.Service(ServiceKey{"prod", "orders"}).Statuses[StatusCritical], 1)
	mustEqual(t, "the number held back", valueOf(t, m.machine.metrics.reportVerdicts.WithLabelValues("held_back")), 3)
}

func (m *member) report(t *testing.T, id, name, from string) Reported {
	t.Helper()
	told, err := m.registry.Report(context.Background(), ref("prod", "orders", id), Report{Reporter: name, Outcome: ReportFailure, From: netip.MustParseAddr(from)})
	if err != nil {
		t.Fatalf("report %s as %s: %v", id, name, err)
	}
	return told
}

// TestAVerdictThatDoesNotPass shows that what was said counts on, for whoever reports next.
func TestAVerdictThatDoesNotPass(t *testing.T) {
	m := newMember(t, newManualClock())
	m.carry()
	m.register(reg("prod", "orders", "a", "10.0.0.1", 80))
	m.putPolicy(`{"reports":{"effect":"warning","quorum":2}}`)
	m.report(t, "a", "r1", "10.0.0.1")
	m.report(t, "a", "r2", "10.0.0.2")
	m.spoil = func(string) error { return ErrUnknownOutcome }
	mustEqual(t, "that there is more to do", m.registry.judge(context.Background()), false)
	m.spoil = nil
	mustEqual(t, "the reporters", m.report(t, "a", "r1", "10.0.0.1").Reporters, 2)
	m.registry.judge(context.Background())
	mustEqual(t, "the status", m.machine.Instance(InstanceKey{"prod", "orders", "a"}).Status, StatusWarning)
}

// TestReportsAreBounded shows what is forgotten when there is no room, and that
// somebody who reports everything takes no quorum away.
func TestReportsAreBounded(t *testing.T) {
	full := make(map[string]int)
	clock := newManualClock()
	r := newReports(clock.Now, func(what string) { full[what]++ })
	r.begin(1)
	tell := func(service, id, name, from string) *recordv1.ToldReport {
		i := &Instance{Origin: &Origin{Namespace: "prod", Service: service}, ID: id, Status: StatusPassing}
		item := &recordv1.Report{Key: keyToRecord(i.Key()), Reporter: name, From: from}
		return r.tell(1, []*recordv1.Report{item}, []reportable{{key: i.Key(), instance: i, rules: (*Policy)(nil).ReportRules()}})[0]
	}
	for n := range 100 {
		tell("orders", "a", fmt.Sprint("n", n), "10.0.0.1")
	}
	mustEqual(t, "those of one address", r.kept(), reportersPerFromMax)
	for n := range reportQuorumMax {
		for name := range reportersPerFromMax {
			tell("orders", "b", fmt.Sprintf("n%d-%d", n, name), fmt.Sprint("10.0.1.", n))
		}
	}
	mustEqual(t, "those of an instance", r.kept(), reportersPerFromMax+reportersMax)
	mustEqual(t, "who counts", tell("orders", "b", "one", "10.0.2.1").Reporters, reportQuorumMax+1)
	mustEqual(t, "those of a full instance", r.kept(), reportersPerFromMax+reportersMax)
	for n := range reportsPerServiceMax {
		tell("orders", fmt.Sprint("i", n), "n", "10.0.0.1")
	}
	mustEqual(t, "those of a service", r.kept(), reportsPerServiceMax)
	for n := range reportsMax {
		tell(fmt.Sprint("s", n/reportsPerServiceMax), fmt.Sprint("i", n), "n", "10.0.0.1")
	}
	mustEqual(t, "all", r.kept(), reportsMax)
	mustEqual(t, "the accusations", len(r.of), reportsMax)
	mustEqual(t, "the services", len(r.services), reportsMax/reportsPerServiceMax)
	mustEqual(t, "what was full", fmt.Sprint(full), fmt.Sprint(map[string]int{
		"address": 100 - reportersPerFromMax, "instance": 1, "service": reportersPerFromMax + reportersMax, "all": reportsPerServiceMax,
	}))
	clock.advance(reportsKept)
	tell("orders", "a", "n", "10.0.0.1")
	mustEqual(t, "those that are not too old", r.kept(), 1)
	mustEqual(t, "the accusations that are not too old", len(r.of), 1)
}

// TestAnAddressReportsAtABoundedRate shows that one address is refused above its
// rate, of IPv6 with all of its network, others and this machine are not, and that it passes.
func TestAnAddressReportsAtABoundedRate(t *testing.T) {
	clock := newManualClock()
	r := newReportRates(clock.Now)
	allowed := func(from string, n int) (count int) {
		for range n {
			if r.allow(netip.MustParseAddr(from)) {
				count++
			}
		}
		return count
	}
	mustEqual(t, "what an address may at once", allowed("10.0.0.1", 2*reportsAtOnce), reportsAtOnce)
	mustEqual(t, "what another may", allowed("10.0.0.2", 10), 10)
	mustEqual(t, "what this machine may", allowed("127.0.0.1", 2*reportsAtOnce), 2*reportsAtOnce)
	mustEqual(t, "what a network may", allowed("2001:db8::1", reportsAtOnce/2)+allowed("2001:db8::2", reportsAtOnce), reportsAtOnce)
	clock.advance(time.Second)
	mustEqual(t, "what it may a second later", allowed("10.0.0.1", 2*reportsAtOnce), reportsPerSecond)
	for n := range reportSourcesMax {
		r.allow(netip.AddrFrom4([4]byte{11, 0, byte(n >> 8), byte(n)}))
	}
	mustEqual(t, "the addresses that are remembered", r.order.Len(), reportSourcesMax)
	mustEqual(t, "the addresses that can be found", len(r.of), reportSourcesMax)
}

// TestReportRefusesBadInput shows that all that is wrong is named at once.
func TestReportRefusesBadInput(t *testing.T) {
	m := newMember(t, newManualClock())
	for name, one := range map[string]struct {
		report Report
		fields []string
		says   string
	}{
		"no outcome":       {Report{Reporter: strings.Repeat("a", 129)}, []string{"reporter", "outcome"}, "is missing: failure, or success to take one back"},
		"another outcome":  {Report{Outcome: "down", Reason: "a\nb"}, []string{"outcome", "reason"}, `"down" is not known: failure, or success`},
		"a reason of none": {Report{Outcome: ReportSuccess, Reason: "it works"}, []string{"reason"}, "the outcome is success: leave it out"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := m.registry.Report(context.Background(), ref("prod", "orders", "a"), one.report)
			mustBeInvalid(t, err, one.fields, one.says)
		})
	}
}

// TestReportsWaitInABoundedQueue shows that a leader which does not answer costs so much and no more.
func TestReportsWaitInABoundedQueue(t *testing.T) {
	m := newMember(t, newManualClock())
	item := &recordv1.Report{}
	for range reportsWaitingMax {
		if err := m.registry.messenger.join(&pendingReport{item: item, done: make(chan struct{})}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := m.registry.messenger.tell(context.Background(), item)
	mustEqual(t, "that the next is refused", errors.Is(err, ErrBusy), true)
	mustEqual(t, "the number refused", valueOf(t, m.machine.metrics.reportsRefused.WithLabelValues("queue")), 1)
	batch, _ := m.registry.messenger.take()
	mustEqual(t, "one question", len(batch), reportsPerAskMax)
	m.registry.messenger.stop()
	_, err = m.registry.messenger.tell(context.Background(), item)
	mustEqual(t, "that it is over", errors.Is(err, ErrStopping), true)
}
