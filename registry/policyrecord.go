package registry

import (
	"fmt"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

func (p *Policy) record() *recordv1.Policy {
	if p == nil {
		return nil
	}
	record := &recordv1.Policy{GraceSeconds: p.GraceSeconds, FailClosed: p.FailClosed, ProtectThreshold: p.ProtectThreshold, LocalPort: p.LocalPort}
	if e := p.PrimaryEndpoint; e != nil {
		record.PrimaryEndpoint = &recordv1.ServiceEndpoint{Name: e.Name, Protocol: e.Protocol}
	}
	if b := p.LoadBalancing; b != nil {
		record.LoadBalancing = &recordv1.LoadBalancing{Algorithm: b.Algorithm, HashHeader: b.HashHeader, HashSourceAddress: b.HashSourceAddress}
		if c := b.HashCookie; c != nil {
			record.LoadBalancing.HashCookie = &recordv1.HashCookie{Name: c.Name, TtlSeconds: c.TTLSeconds}
		}
	}
	if o := p.OutlierDetection; o != nil {
		record.OutlierDetection = &recordv1.OutlierDetection{
			Disabled: o.Disabled, LocalFailures: o.LocalFailures, GatewayFailures: o.GatewayFailures, IntervalMs: o.IntervalMs,
			BaseEjectionMs: o.BaseEjectionMs, MaxEjectionMs: o.MaxEjectionMs, MaxEjectionPercent: o.MaxEjectionPercent, FailurePercent: o.FailurePercent, MinRequests: o.MinRequests,
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
	record.Retries = p.Retries.record()
	if f := p.Failover; f != nil {
		record.Failover = &recordv1.Failover{
			OverprovisioningPercent: f.OverprovisioningPercent, Mode: f.Mode, Regions: f.Regions, MinPassing: f.MinPassing,
			ZoneFirst: f.ZoneFirst, AllOrNothing: f.AllOrNothing, MinHealthyPercent: f.MinHealthyPercent,
			StaleAfterSeconds: f.StaleAfterSeconds, Stale: f.Stale, Gateway: f.Gateway,
		}
	}
	if r := p.Reports; r != nil {
		record.Reports = &recordv1.Reports{
			Effect: r.Effect, Quorum: r.Quorum, WindowSeconds: r.WindowSeconds, LastsSeconds: r.LastsSeconds, MaxPercent: r.MaxPercent,
		}
		if l := r.FromLoad; l != nil {
			record.Reports.FromLoad = &recordv1.LoadReports{ErrorPercent: l.ErrorPercent, MinRequests: l.MinRequests}
		}
	}
	if s := p.SelfPreservation; s != nil {
		record.SelfPreservation = &recordv1.SelfPreservation{Enabled: s.Enabled, Least: s.Least, Percent: s.Percent, LimitSeconds: s.LimitSeconds}
	}
	if c := p.Checks; c != nil {
		record.Checks = &recordv1.ActiveChecks{
			Kind: c.Kind, Path: c.Path, Service: c.Service, IntervalMs: c.IntervalMs, TimeoutMs: c.TimeoutMs,
			UnhealthyAfter: c.UnhealthyAfter, HealthyAfter: c.HealthyAfter,
		}
	}
	for _, d := range p.Drops {
		record.Drops = append(record.Drops, &recordv1.PolicyDrop{Category: d.Category, Percent: d.Percent})
	}
	record.Subsets = subsetsToRecord(p.Subsets)
	record.Routes = routesToRecord(p.Routes)
	return record
}

// policyOfRecord keeps what the record points to, which never changes.
func policyOfRecord(record *recordv1.Policy) *Policy {
	if record == nil {
		return nil
	}
	p := &Policy{GraceSeconds: record.GraceSeconds, FailClosed: record.GetFailClosed(), ProtectThreshold: record.ProtectThreshold, LocalPort: record.LocalPort}
	if e := record.GetPrimaryEndpoint(); e != nil {
		p.PrimaryEndpoint = &PrimaryEndpoint{Name: e.GetName(), Protocol: e.GetProtocol()}
	}
	if b := record.GetLoadBalancing(); b != nil {
		p.LoadBalancing = &LoadBalancing{Algorithm: b.GetAlgorithm(), HashHeader: b.GetHashHeader(), HashSourceAddress: b.GetHashSourceAddress()}
		if c := b.GetHashCookie(); c != nil {
			p.LoadBalancing.HashCookie = &HashCookie{Name: c.GetName(), TTLSeconds: c.TtlSeconds}
		}
	}
	if o := record.GetOutlierDetection(); o != nil {
		p.OutlierDetection = &OutlierDetection{
			Disabled: o.GetDisabled(), LocalFailures: o.LocalFailures, GatewayFailures: o.GatewayFailures, IntervalMs: o.IntervalMs,
			BaseEjectionMs: o.BaseEjectionMs, MaxEjectionMs: o.MaxEjectionMs, MaxEjectionPercent: o.MaxEjectionPercent, FailurePercent: o.FailurePercent, MinRequests: o.MinRequests,
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
	p.Retries = retriesOfRecord(record.GetRetries())
	if f := record.GetFailover(); f != nil {
		p.Failover = &Failover{
			OverprovisioningPercent: f.OverprovisioningPercent, Mode: f.GetMode(), Regions: f.GetRegions(), MinPassing: f.MinPassing,
			ZoneFirst: f.GetZoneFirst(), AllOrNothing: f.GetAllOrNothing(), MinHealthyPercent: f.MinHealthyPercent,
			StaleAfterSeconds: f.StaleAfterSeconds, Stale: f.GetStale(), Gateway: f.GetGateway(),
		}
	}
	if r := record.GetReports(); r != nil {
		p.Reports = &Reports{
			Effect: r.GetEffect(), Quorum: r.Quorum, WindowSeconds: r.WindowSeconds, LastsSeconds: r.LastsSeconds, MaxPercent: r.MaxPercent,
		}
		if l := r.GetFromLoad(); l != nil {
			p.Reports.FromLoad = &LoadReports{ErrorPercent: l.ErrorPercent, MinRequests: l.MinRequests}
		}
	}
	if s := record.GetSelfPreservation(); s != nil {
		p.SelfPreservation = &SelfPreservation{Enabled: s.Enabled, Least: s.Least, Percent: s.Percent, LimitSeconds: s.LimitSeconds}
	}
	if c := record.GetChecks(); c != nil {
		p.Checks = &ActiveChecks{
			Kind: c.GetKind(), Path: c.GetPath(), Service: c.GetService(), IntervalMs: c.IntervalMs, TimeoutMs: c.TimeoutMs,
			UnhealthyAfter: c.UnhealthyAfter, HealthyAfter: c.HealthyAfter,
		}
	}
	for _, d := range record.GetDrops() {
		p.Drops = append(p.Drops, Drop{Category: d.GetCategory(), Percent: d.GetPercent()})
	}
	p.Subsets = subsetsOfRecord(record.GetSubsets())
	p.Routes = routesOfRecord(record.GetRoutes())
	return p
}

func (r *Retries) record() *recordv1.Retries {
	if r == nil {
		return nil
	}
	return &recordv1.Retries{Attempts: r.Attempts, When: r.When, Statuses: r.Statuses}
}

func retriesOfRecord(r *recordv1.Retries) *Retries {
	if r == nil {
		return nil
	}
	return &Retries{Attempts: r.Attempts, When: r.GetWhen(), Statuses: r.GetStatuses()}
}

func subsetsToRecord(subsets []Subset) []*recordv1.PolicySubset {
	var out []*recordv1.PolicySubset
	for _, s := range subsets {
		out = append(out, &recordv1.PolicySubset{Name: s.Name, Version: s.Version, Labels: pairsToRecord(PairsOf(s.Labels))})
	}
	return out
}

func subsetsOfRecord(records []*recordv1.PolicySubset) []Subset {
	var out []Subset
	for _, r := range records {
		s := Subset{Name: r.GetName(), Version: r.GetVersion()}
		for _, pair := range r.GetLabels() {
			if s.Labels == nil {
				s.Labels = make(map[string]string, len(r.GetLabels()))
			}
			s.Labels[pair.GetKey()] = pair.GetValue()
		}
		out = append(out, s)
	}
	return out
}

func routesToRecord(routes []Route) []*recordv1.PolicyRoute {
	var out []*recordv1.PolicyRoute
	for _, r := range routes {
		record := &recordv1.PolicyRoute{Match: r.Match.record(), Retries: r.Retries.record(), PrefixRewrite: r.PrefixRewrite}
		for _, t := range r.Split {
			record.Split = append(record.Split, &recordv1.SplitTarget{Subset: t.Subset, Weight: t.Weight})
		}
		if m := r.Mirror; m != nil {
			record.Mirror = &recordv1.Mirror{Subset: m.Subset, Service: m.Service, Percent: m.Percent}
		}
		if t := r.Timeouts; t != nil {
			record.Timeouts = &recordv1.RouteTimeouts{RequestMs: t.RequestMs, PerTryMs: t.PerTryMs}
		}
		if f := r.Fault; f != nil {
			record.Fault = &recordv1.Fault{DelayMs: f.DelayMs, DelayPercent: f.DelayPercent, AbortStatus: f.AbortStatus, AbortPercent: f.AbortPercent}
		}
		out = append(out, record)
	}
	return out
}

func routesOfRecord(records []*recordv1.PolicyRoute) []Route {
	var out []Route
	for _, r := range records {
		route := Route{Match: matchOfRecord(r.GetMatch()), Retries: retriesOfRecord(r.GetRetries()), PrefixRewrite: r.GetPrefixRewrite()}
		for _, t := range r.GetSplit() {
			route.Split = append(route.Split, SplitTarget{Subset: t.GetSubset(), Weight: t.GetWeight()})
		}
		if m := r.GetMirror(); m != nil {
			route.Mirror = &Mirror{Subset: m.GetSubset(), Service: m.GetService(), Percent: m.Percent}
		}
		if t := r.GetTimeouts(); t != nil {
			route.Timeouts = &RouteTimeouts{RequestMs: t.RequestMs, PerTryMs: t.PerTryMs}
		}
		if f := r.GetFault(); f != nil {
			route.Fault = &Fault{DelayMs: f.DelayMs, DelayPercent: f.DelayPercent, AbortStatus: f.AbortStatus, AbortPercent: f.AbortPercent}
		}
		out = append(out, route)
	}
	return out
}

func (m *RouteMatch) record() *recordv1.RouteMatch {
	if m == nil {
		return nil
	}
	record := &recordv1.RouteMatch{Path: m.Path, Prefix: m.Prefix, Method: m.Method}
	for _, h := range m.Headers {
		record.Headers = append(record.Headers, &recordv1.HeaderMatch{Name: h.Name, Exact: h.Exact, Prefix: h.Prefix, Present: h.Present})
	}
	return record
}

func matchOfRecord(r *recordv1.RouteMatch) *RouteMatch {
	if r == nil {
		return nil
	}
	m := &RouteMatch{Path: r.GetPath(), Prefix: r.GetPrefix(), Method: r.GetMethod()}
	for _, h := range r.GetHeaders() {
		m.Headers = append(m.Headers, HeaderMatch{Name: h.GetName(), Exact: h.GetExact(), Prefix: h.GetPrefix(), Present: h.GetPresent()})
	}
	return m
}

func encodedPolicy(p *Policy) []byte { return encode(p.record()) }

func encodePolicies(d *Document[Policy]) []byte {
	return encodeDocument(d, func(e *recordv1.Edit, p *Policy) { e.Policy = p.record() })
}

func decodePolicies(k ServiceKey, value []byte) (*Document[Policy], error) {
	about := fmt.Sprintf("the policy of service %q in namespace %q", k.Service, k.Namespace)
	return decodeDocument(about, value, func(e *recordv1.Edit) *Policy { return policyOfRecord(e.GetPolicy()) })
}
