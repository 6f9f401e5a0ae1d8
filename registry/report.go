package registry

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// The bounds of what one report says.
const (
	reporterBytesMax     = 128
	reportReasonBytesMax = 256
)

// What becomes of reports where a policy has an effect and says nothing else.
const (
	reportQuorum    = 3
	reportQuorumMin = 2 // what one caller says may be about himself
	reportQuorumMax = 16
	reportWindow    = 30 * time.Second
	reportLasts     = time.Minute
	reportPercent   = 50
)

// The outcomes that can be reported.
const (
	ReportFailure = "failure" // the instance was called and did not work
	ReportSuccess = "success" // it works again: the reporter takes back what he has said
)

// A Report is what one of those who call an instance says of it.
type Report struct {
	Reporter string     // the name that he gives himself; empty = the address is his name
	Outcome  string     // ReportFailure or ReportSuccess
	Reason   string     // of a failure, for people; optional
	From     netip.Addr // where the report came from; the zero one is not known
}

// Reported is what has come of a report.
type Reported struct {
	Revision  Revision
	Reporters int // that count against the instance now
	Rules     ReportRules
}

// ReportRules are what a policy wants done with reports.
type ReportRules struct {
	Effect  Status // what instances become; 0 = nothing is done
	Quorum  int
	Window  time.Duration
	Lasts   time.Duration
	Percent int // of the instances at most are critical
}

// ReportRules are the rules of a policy, or of none.
func (p *Policy) ReportRules() ReportRules {
	rules := ReportRules{Quorum: reportQuorum, Window: reportWindow, Lasts: reportLasts, Percent: reportPercent}
	if p == nil || p.Reports == nil {
		return rules
	}
	r := p.Reports
	rules.Effect = statusCalled(r.Effect)
	rules.Quorum, rules.Percent = orCount(r.Quorum, rules.Quorum), orCount(r.MaxPercent, rules.Percent)
	rules.Window, rules.Lasts = orSeconds(r.WindowSeconds, rules.Window), orSeconds(r.LastsSeconds, rules.Lasts)
	return rules
}

// LoadRules are when what a proxy reports of its calls is a report of an instance.
type LoadRules struct {
	Percent int    // of failed calls, from which on it says that the instance fails
	Least   uint64 // calls, below which it says nothing
}

// loadLeast is that of a policy which does not say.
const loadLeast = 10

// LoadRules are the rules of a policy, or of none; false says that there are none.
func (p *Policy) LoadRules() (LoadRules, bool) {
	if p == nil || p.Reports == nil || p.Reports.FromLoad == nil {
		return LoadRules{}, false
	}
	l := p.Reports.FromLoad
	return LoadRules{Percent: orCount(l.ErrorPercent, 100), Least: uint64(orCount(l.MinRequests, loadLeast))}, true
}

// orCount is a count, or its default; orSeconds the same of a time.
func orCount(n *int64, otherwise int) int {
	if n == nil {
		return otherwise
	}
	return int(*n)
}

func orSeconds(n *int64, otherwise time.Duration) time.Duration {
	if n == nil {
		return otherwise
	}
	return time.Duration(*n) * time.Second
}

// Report tells the leader what a caller says of an instance. It is kept in the
// leader's memory: only what enough of them say, as the service's policy has it, goes
// through the log. The error is ErrNotFound when there is no such instance whose
// lease holds, and ErrReportRate when too many reports come from there.
func (r *Registry) Report(ctx context.Context, ref InstanceRef, report Report) (Reported, error) {
	var bad problems
	n := ref.normalize(&bad)
	report.normalize(&bad)
	if err := bad.err(); err != nil {
		return Reported{}, err
	}
	if err := n.instanceKey().permit(ctx, VerbReport); err != nil {
		return Reported{}, err
	}
	if !r.rates.allow(report.From) {
		r.machine.metrics.reportsRefused.WithLabelValues("rate").Inc()
		return Reported{}, ErrReportRate
	}
	rules, at := r.machine.reportRules(n.instanceKey().ServiceKey()) // before what may come of it
	told, err := r.messenger.tell(ctx, report.record(n.instanceKey()))
	if err != nil {
		return Reported{}, fmt.Errorf("report: %w", err)
	}
	if !told.GetFound() {
		return Reported{Revision: at}, missingInstance(n.instanceKey(), "it never was, it was deregistered, or its lease has run out")
	}
	return Reported{Revision: at, Reporters: int(told.GetReporters()), Rules: rules}, nil
}

func (r *Report) normalize(bad *problems) {
	r.Reporter = strings.TrimSpace(r.Reporter)
	saidText(r.Reporter, "reporter", reporterBytesMax, bad)
	switch r.Outcome {
	case ReportFailure, ReportSuccess:
	case "":
		bad.add("outcome", "is missing: failure, or success to take one back")
	default:
		bad.add("outcome", fmt.Sprintf("%s is not known: failure, or success to take one back", quoted(r.Outcome)))
	}
	saidText(r.Reason, "reason", reportReasonBytesMax, bad)
	if r.Outcome == ReportSuccess && r.Reason != "" {
		bad.add("reason", "says why an instance failed, and the outcome is success: leave it out")
	}
}

func (r *Report) record(k InstanceKey) *recordv1.Report {
	return &recordv1.Report{
		Key: keyToRecord(k), Reporter: r.Reporter, From: NetworkOf(r.From), Success: r.Outcome == ReportSuccess, Reason: r.Reason,
	}
}

// networkBits are those of an IPv6 address that its host cannot choose.
const networkBits = 64

// NetworkOf is what stands for whoever sends from an address: of IPv6 the network,
// since each host has as many addresses in it as it likes.
func NetworkOf(from netip.Addr) string {
	from = from.Unmap().WithZone("")
	if !from.IsValid() {
		return "unknown"
	}
	if !from.Is6() || from.IsLoopback() {
		return from.String()
	}
	return netip.PrefixFrom(from, networkBits).Masked().String()
}

// reportRules are those of a service, and the revision that they are of.
func (m *Machine) reportRules(k ServiceKey) (ReportRules, Revision) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.published.policies[k].Content().ReportRules(), m.revision
}

// A ReportedInstance is what callers have reported of an instance lately.
type ReportedInstance struct {
	ID        string
	Reporters int    // that count against it now
	Reason    string // the last one given
	By        []ReportedBy
}

// ReportedBy is what one of them has reported.
type ReportedBy struct {
	Reporter string // the name that he gives himself
	From     string // the address that it came from, of IPv6 the network
	Since    int64  // Unix ms, like the next, by the leader's clock
	Last     int64
	Times    int
}

// Reports are what callers have said of the instances of a service, as its leader
// remembers, sorted by id; and the rules by which they count.
func (r *Registry) Reports(ctx context.Context, k ServiceKey) ([]ReportedInstance, ReportRules, Revision, error) {
	var bad problems
	k = k.normalize(&bad)
	if err := bad.err(); err != nil {
		return nil, ReportRules{}, 0, err
	}
	if err := (InstanceKey{Namespace: k.Namespace, Service: k.Service}).permit(ctx, VerbRead); err != nil {
		return nil, ReportRules{}, 0, err
	}
	answer, err := askReports(ctx, r.replicator.AskLeader, &recordv1.TellReports{Show: &recordv1.ServiceKey{Namespace: k.Namespace, Service: k.Service}})
	if err != nil {
		return nil, ReportRules{}, 0, err
	}
	rules, at := r.machine.reportRules(k)
	return reportedOfRecord(answer.GetInstances()), rules, at, nil
}

// askReports tells the leader, or asks it.
func askReports(ctx context.Context, ask func(context.Context, []byte) ([]byte, error), tell *recordv1.TellReports) (*recordv1.ToldReports, error) {
	reply, err := ask(ctx, encode(&recordv1.Ask{Format: formatMax, Kind: &recordv1.Ask_TellReports{TellReports: tell}}))
	if err != nil {
		return nil, fmt.Errorf("tell the leader of reports: %w", err)
	}
	var answer recordv1.Answer
	if err := proto.Unmarshal(reply, &answer); err != nil {
		return nil, fmt.Errorf("decode the leader's word on reports: %w", err)
	}
	if n := len(answer.GetToldReports().GetOutcomes()); n != len(tell.GetItems()) {
		return nil, fmt.Errorf("the leader answered %d reports of %d", n, len(tell.GetItems()))
	}
	return answer.GetToldReports(), nil
}

func reportedOfRecord(record []*recordv1.ReportedInstance) []ReportedInstance {
	var out []ReportedInstance
	for _, i := range record {
		one := ReportedInstance{ID: i.GetId(), Reporters: int(i.GetReporters()), Reason: i.GetReason()}
		for _, by := range i.GetBy() {
			one.By = append(one.By, ReportedBy{Reporter: by.GetReporter(), From: by.GetFrom(), Since: by.GetSinceMs(), Last: by.GetLastMs(), Times: int(by.GetTimes())})
		}
		out = append(out, one)
	}
	return out
}
