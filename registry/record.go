package registry

import (
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// formatMax is the newest format of commands and records that this version
// understands. Anything newer stops the member: to skip what it cannot read
// would part its state from the others'.
const formatMax = 1

// formatProblem is empty for a format that this version reads. There is no
// format 0: that is what bytes have that nobody encoded.
func formatProblem(format uint32) string {
	switch {
	case format == 0:
		return "has no format: it is damaged"
	case format > formatMax:
		return fmt.Sprintf("has format %d, this version reads up to %d: run a newer version", format, formatMax)
	}
	return ""
}

// encode marshals with a fixed order of fields, so that members with equal state have equal bytes.
func encode(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("registry: encode %T: %v", m, err)) // texts are checked to be UTF-8 before they come here
	}
	return b
}

func specOf(r Registration) *recordv1.InstanceSpec {
	return &recordv1.InstanceSpec{
		Group: r.Group, Zone: r.Zone, Version: r.Version,
		Labels: pairsToRecord(PairsOf(r.Labels)), Metadata: pairsToRecord(PairsOf(r.Metadata)),
		Endpoints: endpointsToRecord(r.Endpoints), LeaseTtlMs: r.LeaseTTLSeconds * 1000, Checks: checksToRecord(r.Checks),
	}
}

func (i *Instance) spec() *recordv1.InstanceSpec {
	return &recordv1.InstanceSpec{
		Group: i.Group, Zone: i.Zone, Version: i.Version,
		Labels: pairsToRecord(i.Labels), Metadata: pairsToRecord(i.Metadata),
		Endpoints: endpointsToRecord(i.Endpoints), LeaseTtlMs: i.LeaseTTL.Milliseconds(), Checks: checksToRecord(i.Checks()),
	}
}

func (i *Instance) encode() []byte { return encode(i.record()) }

func (i *Instance) record() *recordv1.InstanceRecord {
	return &recordv1.InstanceRecord{
		Format: formatMax, Spec: i.spec(),
		RegisteredAtMs: i.RegisteredAt, LastHeartbeatMs: i.LastHeartbeat,
		Status: recordv1.InstanceRecord_Status(i.Status), ExpiredAtMs: i.ExpiredAt,
		Revision: uint64(i.Revision), Counter: i.Counter, Lease: uint64(i.Lease),
		StatusSinceMs: i.since(), Conditions: conditionsToRecord(i.Conditions()), Number: i.Number,
		Token: i.Token.record(), LeaseId: i.LeaseID, Imported: i.importedRecord(),
	}
}

func (r *serviceRecord) encode() []byte {
	record := &recordv1.ServiceRecord{
		Format: formatMax, Created: uint64(r.created), Revision: uint64(r.revision),
		Baseline: uint64(r.baseline), FellAtMs: r.fellAt, EmptiedAtMs: r.emptiedAt,
		Overrides: overridesToRecord(r.overrides), ProtectedSinceMs: r.protectedSince, Protections: protectionsToRecord(r.protections),
	}
	record.Endpoints, record.ImportedEndpoints = namesToRecord(r.endpoints), namesToRecord(r.imported)
	return encode(record)
}

func namesToRecord(names []ServiceEndpoint) []*recordv1.ServiceEndpoint {
	var out []*recordv1.ServiceEndpoint
	for _, e := range names {
		out = append(out, &recordv1.ServiceEndpoint{Name: e.Name, Protocol: e.Protocol})
	}
	return out
}

func (d *reader) names(record []*recordv1.ServiceEndpoint) []ServiceEndpoint {
	var out []ServiceEndpoint
	for _, e := range record {
		out = append(out, ServiceEndpoint{Name: d.share(e.GetName()), Protocol: d.share(e.GetProtocol())})
	}
	return out
}

func pairsToRecord(pairs Pairs) []*recordv1.Pair {
	var out []*recordv1.Pair
	for _, p := range pairs {
		out = append(out, &recordv1.Pair{Key: p.Key, Value: p.Value})
	}
	return out
}

func endpointsToRecord(endpoints []Endpoint) []*recordv1.Endpoint {
	var out []*recordv1.Endpoint
	for _, e := range endpoints {
		out = append(out, &recordv1.Endpoint{Name: e.Name, Protocol: e.Protocol, Host: e.Host, Port: e.Port, Path: e.Path, Weight: e.Weight})
	}
	return out
}

// A reader turns records into instances. It belongs to the goroutine that
// applies, and keeps one copy of each text, and of each origin and set of labels,
// metadata or checks, that many instances share.
type reader struct {
	region      string
	shared      map[string]string
	sharedPairs map[string]Pairs // by their texts, one after the other
	pairsKey    []byte           // scratch

	sharedOrigins map[Origin]*Origin
	sharedChecks  map[string][]Check // by their records
}

// The bounds of what is shared. A longer text or set is not; when there are too
// many, sharing begins anew.
const (
	sharedTextsMax      = 65_536
	sharedTextBytesMax  = 64
	sharedPairsMax      = 16_384
	sharedPairsBytesMax = 512
	sharedOriginsMax    = 65_536
	sharedChecksMax     = 1_024
)

func newReader(region string) *reader {
	return &reader{region: region, shared: make(map[string]string), sharedPairs: make(map[string]Pairs), sharedOrigins: make(map[Origin]*Origin), sharedChecks: make(map[string][]Check)}
}

func (d *reader) share(s string) string {
	if one, ok := d.shared[s]; ok {
		return one
	}
	if len(s) <= sharedTextBytesMax {
		if len(d.shared) == sharedTextsMax {
			clear(d.shared)
		}
		d.shared[s] = s
	}
	return s
}

// instance is a passing instance as its spec says, without times, revisions and lease.
func (d *reader) instance(k InstanceKey, spec *recordv1.InstanceSpec) *Instance {
	return &Instance{
		Origin: d.origin(Origin{Namespace: k.Namespace, Service: k.Service, Group: spec.GetGroup(), Zone: spec.GetZone(), Region: d.region, Version: spec.GetVersion()}), ID: k.ID,
		Labels: d.pairs(spec.GetLabels()), Metadata: d.pairs(spec.GetMetadata()), Endpoints: d.endpoints(spec.GetEndpoints()),
		LeaseTTL: time.Duration(spec.GetLeaseTtlMs()) * time.Millisecond, Status: StatusPassing, Health: healthOf(d.checks(spec.GetChecks()), 0, nil),
	}
}

// origin is the one copy of an origin.
func (d *reader) origin(o Origin) *Origin {
	if one, ok := d.sharedOrigins[o]; ok {
		return one
	}
	o.Namespace, o.Service, o.Group = d.share(o.Namespace), d.share(o.Service), d.share(o.Group)
	o.Zone, o.Version = d.share(o.Zone), d.share(o.Version)
	if len(d.sharedOrigins) == sharedOriginsMax {
		clear(d.sharedOrigins)
	}
	d.sharedOrigins[o] = &o
	return &o
}

func (d *reader) pairs(record []*recordv1.Pair) Pairs {
	if len(record) == 0 {
		return nil
	}
	key := d.pairsKey[:0]
	for _, p := range record {
		for _, text := range [...]string{p.GetKey(), p.GetValue()} {
			key = append(binary.AppendUvarint(key, uint64(len(text))), text...)
		}
	}
	d.pairsKey = key
	if one, ok := d.sharedPairs[string(key)]; ok {
		return one
	}
	pairs := make(Pairs, len(record))
	for i, p := range record {
		pairs[i] = Pair{Key: d.share(p.GetKey()), Value: d.share(p.GetValue())}
	}
	if len(key) <= sharedPairsBytesMax {
		if len(d.sharedPairs) == sharedPairsMax {
			clear(d.sharedPairs)
		}
		d.sharedPairs[string(key)] = pairs
	}
	return pairs
}

func (d *reader) endpoints(record []*recordv1.Endpoint) []Endpoint {
	endpoints := make([]Endpoint, len(record))
	for i, e := range record {
		endpoints[i] = Endpoint{
			Name: d.share(e.GetName()), Protocol: d.share(e.GetProtocol()), Host: e.GetHost(),
			Port: e.GetPort(), Path: d.share(e.GetPath()), Weight: e.GetWeight(),
		}
	}
	return endpoints
}

func (d *reader) decodeInstance(k InstanceKey, value []byte) (*Instance, error) {
	var record recordv1.InstanceRecord
	if err := proto.Unmarshal(value, &record); err != nil {
		return nil, fmt.Errorf("decode instance %q of service %q in namespace %q: %w", k.ID, k.Service, k.Namespace, err)
	}
	return d.recorded(k, &record)
}

// recorded is the instance that a record is of.
func (d *reader) recorded(k InstanceKey, record *recordv1.InstanceRecord) (*Instance, error) {
	if problem := formatProblem(record.GetFormat()); problem != "" {
		return nil, fmt.Errorf("instance %q of service %q in namespace %q %s", k.ID, k.Service, k.Namespace, problem)
	}
	if !known(Status(record.GetStatus())) {
		return nil, fmt.Errorf("instance %q of service %q in namespace %q has status %d, which this version does not know: run a newer version", k.ID, k.Service, k.Namespace, record.GetStatus())
	}
	i := d.instance(k, record.GetSpec())
	i.RegisteredAt, i.LastHeartbeat = record.GetRegisteredAtMs(), record.GetLastHeartbeatMs()
	i.Status, i.ExpiredAt = Status(record.GetStatus()), record.GetExpiredAtMs()
	i.Health = healthOf(i.Checks(), record.GetStatusSinceMs(), d.conditions(record.GetConditions()))
	for at := range i.Checks() {
		if problem := i.Health.Checks[at].unreadable(); problem != "" {
			return nil, fmt.Errorf("instance %q of service %q in namespace %q %s", k.ID, k.Service, k.Namespace, problem)
		}
	}
	for at := range i.Conditions() {
		if problem := i.Health.Conditions[at].unreadable(); problem != "" {
			return nil, fmt.Errorf("instance %q of service %q in namespace %q %s", k.ID, k.Service, k.Namespace, problem)
		}
	}
	if stale := record.GetImported().GetStale(); stale > uint32(staleWithheld) {
		return nil, fmt.Errorf("instance %q of service %q in namespace %q is stale in a way, %d, that this version does not know: run a newer version", k.ID, k.Service, k.Namespace, stale)
	}
	d.takeImported(i, record.GetImported())
	i.LeaseID = d.share(record.GetLeaseId())
	var ok bool
	if i.Token, ok = readToken(record.GetToken()); !ok {
		return nil, fmt.Errorf("instance %q of service %q in namespace %q has the hash of a lease token in %d bytes, which this version does not know: run a newer version", k.ID, k.Service, k.Namespace, len(record.GetToken()))
	}
	if i.Number = record.GetNumber(); i.Number > leaseNumberMax {
		return nil, fmt.Errorf("instance %q of service %q in namespace %q has the number %d in checkpoints, of at most %d: it is damaged", k.ID, k.Service, k.Namespace, i.Number, leaseNumberMax)
	}
	i.Revision, i.Counter, i.Lease = Revision(record.GetRevision()), record.GetCounter(), Revision(record.GetLease())
	return i, nil
}

// unmarshalRecord reads a record of a format that this version knows.
func unmarshalRecord(about string, value []byte, into interface {
	proto.Message
	GetFormat() uint32
}) error {
	if err := proto.Unmarshal(value, into); err != nil {
		return fmt.Errorf("decode %s: %w", about, err)
	}
	if problem := formatProblem(into.GetFormat()); problem != "" {
		return fmt.Errorf("%s %s", about, problem)
	}
	return nil
}

func (d *reader) decodeService(k ServiceKey, value []byte) (serviceRecord, error) {
	var record recordv1.ServiceRecord
	if err := proto.Unmarshal(value, &record); err != nil {
		return serviceRecord{}, fmt.Errorf("decode service %q in namespace %q: %w", k.Service, k.Namespace, err)
	}
	if problem := formatProblem(record.GetFormat()); problem != "" {
		return serviceRecord{}, fmt.Errorf("service %q in namespace %q %s", k.Service, k.Namespace, problem)
	}
	r := serviceRecord{
		created: Revision(record.GetCreated()), revision: Revision(record.GetRevision()),
		baseline: int(record.GetBaseline()), fellAt: record.GetFellAtMs(), emptiedAt: record.GetEmptiedAtMs(),
		overrides: d.overrides(record.GetOverrides()), protectedSince: record.GetProtectedSinceMs(), protections: d.protections(record.GetProtections()),
	}
	for at := range r.protections {
		if problem := r.protections[at].unreadable(); problem != "" {
			return serviceRecord{}, fmt.Errorf("service %q in namespace %q %s", k.Service, k.Namespace, problem)
		}
	}
	r.endpoints, r.imported = d.names(record.GetEndpoints()), d.names(record.GetImportedEndpoints())
	return r, nil
}
