package xds

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/stellmap/stellmap/registry"
)

// kind says what sort of client a node is.
type kind uint8

const (
	kindEnvoy   kind = iota
	kindGRPC         // a client without a proxy
	kindGateway      // an Envoy by which other regions reach this one's instances
)

func (k kind) String() string { return [...]string{"envoy", "grpc", "gateway"}[k] }

// retriesAt is where a client looks for what it is to send again.
type retriesAt uint8

const (
	retriesAtHosts    retriesAt = iota // in the routes: any client
	retriesAtClusters                  // in the clusters, where it overrides the routes: Envoy from clusterRetriesMajor.clusterRetriesMinor on
	retriesPlaces
)

// The first release of Envoy that reads retries in clusters. An earlier one passes
// over them without a word.
const (
	clusterRetriesMajor = 1
	clusterRetriesMinor = 37
)

// Keys of a node's metadata, flat strings as written.
const (
	metadataNamespace  = "stellmap.namespace"
	metadataService    = "stellmap.service"
	metadataUpstreams  = "stellmap.upstreams"
	metadataEgressPort = "stellmap.egress_port"
	metadataOnDemand   = "stellmap.on_demand"
	metadataRole       = "stellmap.role" // see gateway.go, like the next two
	metadataGateway    = "stellmap.gateway_address"
	metadataGatePort   = "stellmap.gateway_port"

	namespaceDefault  = "default"
	egressPortDefault = 15001
	upstreamsMax      = 10_000
	nodeTextMax       = 1024 // bytes of one of a node's names
)

// A node is what a client says of itself in its first message. What Envoy sends
// is some 60 kB, most of it a list of its extensions; only this is kept.
type node struct {
	id, cluster  string
	region, zone string
	namespace    string
	placed       bool // it named its namespace
	service      string
	kind         kind
	retries      retriesAt
	upstreams    []string // patterns, sorted, in lower case
	declared     bool     // it named them
	egressPort   uint32
	onDemand     bool           // it asks for what is beyond its scope when a workload calls it; of Envoys only
	gateway      netip.AddrPort // where it listens; of gateways only
}

// entrance is the name of the node's listener for HTTP, and of the routes that it has there.
func (n *node) entrance() string {
	if n.kind == kindGateway {
		return gatewayName
	}
	return egressName
}

// parseNode reads a node; the region of one that names none is the server's.
// Metadata that cannot be understood is refused, since a proxy that silently
// gets the wrong services is worse than one that is told why it gets none.
func parseNode(n *corev3.Node, region string) (*node, error) {
	if n == nil {
		return nil, status.Error(codes.InvalidArgument, "node: is missing in the first message of the stream")
	}
	out := &node{
		id: n.GetId(), cluster: n.GetCluster(), kind: kindOf(n), retries: retriesOf(n),
		region: n.GetLocality().GetRegion(), zone: n.GetLocality().GetZone(),
		namespace: namespaceDefault, egressPort: egressPortDefault,
	}
	if out.region == "" {
		out.region = region
	}
	fields := n.GetMetadata().GetFields()
	if err := out.readRole(fields); err != nil {
		return nil, err
	}
	for key, read := range map[string]func(*structpb.Value) error{
		metadataNamespace:  out.readNamespace,
		metadataService:    out.readService,
		metadataEgressPort: out.readEgressPort,
		metadataUpstreams:  out.readUpstreams,
		metadataOnDemand:   out.readOnDemand,
	} {
		if v := fields[key]; v != nil {
			if err := read(v); err != nil {
				return nil, status.Errorf(codes.InvalidArgument, "node.metadata[%q]: %v", key, err)
			}
		}
	}
	if err := out.checkTexts(); err != nil {
		return nil, err
	}
	out.declared = len(out.upstreams) > 0
	out.place(out.namespace)
	return out, nil
}

// place puts a node into a namespace, all of which one that declares nothing is told of.
func (n *node) place(namespace string) {
	n.namespace = namespace
	if !n.declared {
		n.upstreams = []string{allOf + strings.ToLower(namespace)}
	}
}

// checkTexts bounds what is kept and shown of a node.
func (n *node) checkTexts() error {
	for _, one := range []struct{ field, text string }{
		{"id", n.id}, {"cluster", n.cluster}, {"locality.region", n.region}, {"locality.zone", n.zone},
		{fmt.Sprintf("metadata[%q]", metadataNamespace), n.namespace}, {fmt.Sprintf("metadata[%q]", metadataService), n.service},
	} {
		if len(one.text) > nodeTextMax {
			return status.Errorf(codes.InvalidArgument, "node.%s: has %d bytes: at most %d", one.field, len(one.text), nodeTextMax)
		}
	}
	return nil
}

// kindOf tells gRPC clients by their name, or by what they say they cannot do.
func kindOf(n *corev3.Node) kind {
	if strings.HasPrefix(strings.ToLower(n.GetUserAgentName()), "grpc") ||
		slices.Contains(n.GetClientFeatures(), "envoy.lb.does_not_support_overprovisioning") {
		return kindGRPC
	}
	return kindEnvoy
}

// retriesOf goes by the version that Envoy gives of itself. Of who gives none the
// least is expected.
func retriesOf(n *corev3.Node) retriesAt {
	v := n.GetUserAgentBuildVersion().GetVersion()
	major, minor := v.GetMajorNumber(), v.GetMinorNumber()
	if kindOf(n) == kindEnvoy && (major > clusterRetriesMajor || major == clusterRetriesMajor && minor >= clusterRetriesMinor) {
		return retriesAtClusters
	}
	return retriesAtHosts
}

func (n *node) readNamespace(v *structpb.Value) error {
	_, ok := v.GetKind().(*structpb.Value_StringValue)
	name := strings.TrimSpace(v.GetStringValue())
	if !ok || name == "" || strings.ContainsAny(name, ".*, \t") {
		return fmt.Errorf("%#v is not the name of a namespace: a string without dots, commas, stars and spaces", v.AsInterface())
	}
	n.namespace, n.placed = name, true
	return nil
}

func (n *node) readService(v *structpb.Value) error {
	if _, ok := v.GetKind().(*structpb.Value_StringValue); !ok {
		return fmt.Errorf("%v is not a string", v.AsInterface())
	}
	n.service = strings.TrimSpace(v.GetStringValue())
	return nil
}

func (n *node) readEgressPort(v *structpb.Value) error {
	port, err := portOf(v)
	n.egressPort = uint32(port)
	return err
}

// portOf takes a number, or its digits: what templates write is often a string.
func portOf(v *structpb.Value) (uint16, error) {
	number := v.GetNumberValue()
	if text, ok := v.GetKind().(*structpb.Value_StringValue); ok {
		parsed, err := strconv.ParseUint(strings.TrimSpace(text.StringValue), 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%q is not a port: 1 to 65535", text.StringValue)
		}
		number = float64(parsed)
	}
	if number < 1 || number > 65535 || number != float64(uint16(number)) {
		return 0, fmt.Errorf("%v is not a port: 1 to 65535", v.AsInterface())
	}
	return uint16(number), nil
}

// readOnDemand takes a truth value, or its name: what templates write is often a string.
func (n *node) readOnDemand(v *structpb.Value) error {
	switch text := strings.ToLower(strings.TrimSpace(v.GetStringValue())); {
	case v.GetBoolValue(), text == "true":
		n.onDemand = n.kind == kindEnvoy
	case v.GetStringValue() == "" && v.GetNumberValue() == 0 && v.GetListValue() == nil && v.GetStructValue() == nil, text == "false":
	default:
		return fmt.Errorf("%v is neither true nor false", v.AsInterface())
	}
	return nil
}

// readUpstreams takes a list of strings, or one string with commas.
func (n *node) readUpstreams(v *structpb.Value) error {
	var names []string
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		names = strings.Split(k.StringValue, ",")
	case *structpb.Value_ListValue:
		for i, item := range k.ListValue.GetValues() {
			s, ok := item.GetKind().(*structpb.Value_StringValue)
			if !ok {
				return fmt.Errorf("item %d is not a string", i)
			}
			names = append(names, s.StringValue)
		}
	default:
		return fmt.Errorf("%v is neither a list of strings nor a string with commas", v.AsInterface())
	}
	if len(names) > upstreamsMax {
		return fmt.Errorf("has %d upstreams: at most %d", len(names), upstreamsMax)
	}
	return n.setUpstreams(names)
}

func (n *node) setUpstreams(names []string) error {
	for _, name := range names {
		p, ok := registry.UpstreamPattern(name)
		if p == "" {
			continue
		}
		if !ok {
			return errors.New(registry.NotUpstream(name))
		}
		n.upstreams = append(n.upstreams, p)
	}
	slices.Sort(n.upstreams)
	n.upstreams = slices.Compact(n.upstreams)
	return nil
}
