package grpcapi

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
	"github.com/stellmap/stellmap/registry"
)

// What comes in is taken as it was written: the registry trims, checks and completes it.

func levelsOf(l *stellmapv1.Levels) registry.Levels {
	return registry.Levels{
		Organization: l.GetOrganization(), BusinessDomain: l.GetBusinessDomain(), CapabilityDomain: l.GetCapabilityDomain(),
		Application: l.GetApplication(), Role: l.GetRole(),
	}
}

// named is a message that names an instance.
type named interface {
	GetNamespace() string
	GetService() string
	GetLevels() *stellmapv1.Levels
	GetInstanceId() string
}

func refOf(m named) registry.InstanceRef {
	return registry.InstanceRef{Namespace: m.GetNamespace(), Service: m.GetService(), Levels: levelsOf(m.GetLevels()), ID: m.GetInstanceId()}
}

func registrationOf(m *stellmapv1.RegisterRequest, by registry.Holder) (registry.Registration, error) {
	var bad []registry.Problem
	out := registry.Registration{
		Namespace: m.GetNamespace(), Service: m.GetService(), Levels: levelsOf(m.GetLevels()), ID: m.GetInstanceId(),
		Group: m.GetGroup(), Zone: m.GetZone(), Version: m.GetVersion(),
		Labels: mapOf(m.GetLabels(), "labels", &bad), Metadata: mapOf(m.GetMetadata(), "metadata", &bad),
		LeaseTTLSeconds: m.GetLeaseTtlSeconds(), LeaseID: m.GetLeaseId(), Holder: by,
	}
	for _, e := range m.GetEndpoints() {
		out.Endpoints = append(out.Endpoints, registry.Endpoint{
			Name: e.GetName(), Protocol: e.GetProtocol(), Host: e.GetHost(), Port: e.GetPort(), Path: e.GetPath(), Weight: e.GetWeight(),
		})
	}
	for _, c := range m.GetChecks() {
		out.Checks = append(out.Checks, checkOf(c))
	}
	if len(bad) > 0 {
		return out, &registry.ValidationError{Problems: bad}
	}
	return out, nil
}

func checkOf(c *stellmapv1.Check) registry.Check {
	return registry.Check{
		Name: c.GetName(), Kind: c.GetKind(), Endpoint: c.GetEndpoint(), Path: c.GetPath(), Service: c.GetService(),
		Send: c.GetSend(), Expect: c.GetExpect(), ServerName: c.GetServerName(), TLSSkipVerify: c.GetTlsSkipVerify(),
		IntervalSeconds: c.GetIntervalSeconds(), TimeoutSeconds: c.GetTimeoutSeconds(), Rise: c.GetRise(), Fall: c.GetFall(), Initial: c.GetInitial(),
	}
}

// mapOf refuses a key that stands twice: which of its values was meant nobody knows.
func mapOf(pairs []*stellmapv1.Pair, field string, bad *[]registry.Problem) map[string]string {
	if len(pairs) == 0 {
		return nil
	}
	out := make(map[string]string, len(pairs))
	for i, p := range pairs {
		if _, twice := out[p.GetKey()]; twice {
			*bad = append(*bad, registry.Problem{Field: fmt.Sprintf("%s[%d].key", field, i), Reason: "is given twice: each key once"})
		}
		out[p.GetKey()] = p.GetValue()
	}
	return out
}

func instanceTo(i *registry.Instance, heardAt int64) *stellmapv1.Instance {
	out := &stellmapv1.Instance{
		Namespace: i.Namespace, Service: i.Service, InstanceId: i.ID, Group: i.Group, Zone: i.Zone, Region: i.Region, Version: i.Version,
		Labels: pairsTo(i.Labels), Metadata: pairsTo(i.Metadata), LeaseTtlSeconds: secondsOf(i.LeaseTTL), LeaseId: i.LeaseID,
		RegisteredAt: timeTo(i.RegisteredAt), LastHeartbeatAt: timeTo(heardAt), Status: stellmapv1.Status(i.Status), StatusSince: timeTo(i.StatusSince()),
		Protected: i.Protected, ExpiredAt: timeTo(i.ExpiredAt), Revision: uint64(i.Revision), Counter: i.Counter,
	}
	for _, e := range i.Endpoints {
		out.Endpoints = append(out.Endpoints, &stellmapv1.Endpoint{Name: e.Name, Protocol: e.Protocol, Host: e.Host, Port: e.Port, Path: e.Path, Weight: e.Weight})
	}
	for _, c := range i.Checks() {
		out.Checks = append(out.Checks, checkTo(&c))
	}
	for _, c := range i.Conditions() {
		out.Conditions = append(out.Conditions, conditionTo(&c))
	}
	if i.Imported != nil {
		out.Origin = originTo(i)
	}
	return out
}

func originTo(i *registry.Instance) *stellmapv1.Origin {
	out := &stellmapv1.Origin{
		ClusterId: i.Imported.Cluster, InstanceId: i.SourceID(), Revision: uint64(i.Imported.Revision), SeenAt: timeTo(i.Imported.SeenAt),
	}
	if told := i.ToldStatus(); told != i.Status {
		out.Status = stellmapv1.Status(told)
	}
	return out
}

func checkTo(c *registry.Check) *stellmapv1.Check {
	return &stellmapv1.Check{
		Name: c.Name, Kind: c.Kind, Endpoint: c.Endpoint, Path: c.Path, Service: c.Service,
		Send: c.Send, Expect: c.Expect, ServerName: c.ServerName, TlsSkipVerify: c.TLSSkipVerify,
		IntervalSeconds: c.IntervalSeconds, TimeoutSeconds: c.TimeoutSeconds, Rise: c.Rise, Fall: c.Fall, Initial: c.Initial,
	}
}

func conditionTo(c *registry.Condition) *stellmapv1.Condition {
	return &stellmapv1.Condition{
		Source: c.Source.String(), Name: c.Name, Status: stellmapv1.Status(c.Status), Since: timeTo(c.Since), Until: timeTo(c.Until),
		Reason: c.Reason, By: c.By, HeldUntil: timeTo(c.Held),
	}
}

func pairsTo(pairs registry.Pairs) []*stellmapv1.Pair {
	var out []*stellmapv1.Pair
	for _, p := range pairs {
		out = append(out, &stellmapv1.Pair{Key: p.Key, Value: p.Value})
	}
	return out
}

func serviceTo(s registry.ServiceMatch) *stellmapv1.Service {
	out := &stellmapv1.Service{
		Namespace: s.Key.Namespace, Service: s.Key.Service, Instances: int32(len(s.Instances)), Matching: int32(s.Matching),
		Protected: s.Protected != nil, CreatedRevision: uint64(s.Created), Revision: uint64(s.Revision),
	}
	for of, n := range s.Statuses {
		if n > 0 {
			out.Statuses = append(out.Statuses, &stellmapv1.StatusCount{Status: stellmapv1.Status(of), Instances: n})
		}
	}
	for _, e := range s.Endpoints {
		out.Endpoints = append(out.Endpoints, &stellmapv1.ServiceEndpoint{Name: e.Name, Protocol: e.Protocol})
	}
	return out
}

// timeTo is nil for what has not happened.
func timeTo(unixMs int64) *timestamppb.Timestamp {
	if unixMs == 0 {
		return nil
	}
	return timestamppb.New(time.UnixMilli(unixMs))
}

// ageTo is nil where the age is not known.
func ageTo(age time.Duration, known bool) *durationpb.Duration {
	if !known {
		return nil
	}
	return durationpb.New(age)
}

func secondsOf(d time.Duration) int64 { return int64(d / time.Second) }
