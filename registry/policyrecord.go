package registry

import (
	"fmt"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

func (p *Policy) record() *recordv1.Policy {
	if p == nil {
		return nil
	}
	record := &recordv1.Policy{GraceSeconds: p.GraceSeconds, FailClosed: p.FailClosed, ProtectThreshold: p.ProtectThreshold}
	if e := p.PrimaryEndpoint; e != nil {
		record.PrimaryEndpoint = &recordv1.ServiceEndpoint{Name: e.Name, Protocol: e.Protocol}
	}
	if b := p.LoadBalancing; b != nil {
		record.LoadBalancing = &recordv1.LoadBalancing{Algorithm: b.Algorithm, HashHeader: b.HashHeader}
	}
	if o := p.OutlierDetection; o != nil {
		record.OutlierDetection = &recordv1.OutlierDetection{
			Disabled: o.Disabled, LocalFailures: o.LocalFailures, GatewayFailures: o.GatewayFailures, IntervalMs: o.IntervalMs,
			BaseEjectionMs: o.BaseEjectionMs, MaxEjectionMs: o.MaxEjectionMs, MaxEjectionPercent: o.MaxEjectionPercent,
		}
	}
	if c := p.CircuitBreaking; c != nil {
		record.CircuitBreaking = &recordv1.CircuitBreaking{
			MaxConnections: c.MaxConnections, MaxPendingRequests: c.MaxPendingRequests, MaxRequests: c.MaxRequests,
			RetryBudgetPercent: c.RetryBudgetPercent, MinRetries: c.MinRetries,
		}
	}
	if t := p.Timeouts; t != nil {
		record.Timeouts = &recordv1.Timeouts{ConnectMs: t.ConnectMs, RequestMs: t.RequestMs, PerTryMs: t.PerTryMs}
	}
	if r := p.Retries; r != nil {
		record.Retries = &recordv1.Retries{Attempts: r.Attempts, When: r.When, Statuses: r.Statuses}
	}
	if f := p.Failover; f != nil {
		record.Failover = &recordv1.Failover{OverprovisioningPercent: f.OverprovisioningPercent}
	}
	if r := p.Reports; r != nil {
		record.Reports = &recordv1.Reports{
			Effect: r.Effect, Quorum: r.Quorum, WindowSeconds: r.WindowSeconds, LastsSeconds: r.LastsSeconds, MaxPercent: r.MaxPercent,
		}
	}
	if s := p.SelfPreservation; s != nil {
		record.SelfPreservation = &recordv1.SelfPreservation{Enabled: s.Enabled, Least: s.Least, Percent: s.Percent, LimitSeconds: s.LimitSeconds}
	}
	return record
}

// policyOfRecord keeps what the record points to, which never changes.
func policyOfRecord(record *recordv1.Policy) *Policy {
	if record == nil {
		return nil
	}
	p := &Policy{GraceSeconds: record.GraceSeconds, FailClosed: record.GetFailClosed(), ProtectThreshold: record.ProtectThreshold}
	if e := record.GetPrimaryEndpoint(); e != nil {
		p.PrimaryEndpoint = &PrimaryEndpoint{Name: e.GetName(), Protocol: e.GetProtocol()}
	}
	if b := record.GetLoadBalancing(); b != nil {
		p.LoadBalancing = &LoadBalancing{Algorithm: b.GetAlgorithm(), HashHeader: b.GetHashHeader()}
	}
	if o := record.GetOutlierDetection(); o != nil {
		p.OutlierDetection = &OutlierDetection{
			Disabled: o.GetDisabled(), LocalFailures: o.LocalFailures, GatewayFailures: o.GatewayFailures, IntervalMs: o.IntervalMs,
			BaseEjectionMs: o.BaseEjectionMs, MaxEjectionMs: o.MaxEjectionMs, MaxEjectionPercent: o.MaxEjectionPercent,
		}
	}
	if c := record.GetCircuitBreaking(); c != nil {
		p.CircuitBreaking = &CircuitBreaking{
			MaxConnections: c.MaxConnections, MaxPendingRequests: c.MaxPendingRequests, MaxRequests: c.MaxRequests,
			RetryBudgetPercent: c.RetryBudgetPercent, MinRetries: c.MinRetries,
		}
	}
	if t := record.GetTimeouts(); t != nil {
		p.Timeouts = &Timeouts{ConnectMs: t.ConnectMs, RequestMs: t.RequestMs, PerTryMs: t.PerTryMs}
	}
	if r := record.GetRetries(); r != nil {
		p.Retries = &Retries{Attempts: r.Attempts, When: r.GetWhen(), Statuses: r.GetStatuses()}
	}
	if f := record.GetFailover(); f != nil {
		p.Failover = &Failover{OverprovisioningPercent: f.OverprovisioningPercent}
	}
	if r := record.GetReports(); r != nil {
		p.Reports = &Reports{
			Effect: r.GetEffect(), Quorum: r.Quorum, WindowSeconds: r.WindowSeconds, LastsSeconds: r.LastsSeconds, MaxPercent: r.MaxPercent,
		}
	}
	if s := record.GetSelfPreservation(); s != nil {
		p.SelfPreservation = &SelfPreservation{Enabled: s.Enabled, Least: s.Least, Percent: s.Percent, LimitSeconds: s.LimitSeconds}
	}
	return p
}

func encodedPolicy(p *Policy) []byte { return encode(p.record()) }

func encodePolicies(d *Document[Policy]) []byte {
	return encodeDocument(d, func(e *recordv1.Edit, p *Policy) { e.Policy = p.record() })
}

func decodePolicies(k ServiceKey, value []byte) (*Document[Policy], error) {
	about := fmt.Sprintf("the policy of service %q in namespace %q", k.Service, k.Namespace)
	return decodeDocument(about, value, func(e *recordv1.Edit) *Policy { return policyOfRecord(e.GetPolicy()) })
}
