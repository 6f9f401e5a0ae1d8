package grpcapi

import (
	"fmt"
	"strings"
	"unicode"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/stellmap/stellmap/registry"
)

// unknownMax bounds what one answer lists.
const unknownMax = 32

// known refuses a request with fields that this version does not know: what a newer
// client asks for must not be ignored. Where they are is looked up only if there are any.
func known(request proto.Message) error {
	if !hasUnknown(request.ProtoReflect()) {
		return nil
	}
	var bad []registry.Problem
	findUnknown(request.ProtoReflect(), "", &bad)
	return &registry.ValidationError{Problems: bad}
}

func hasUnknown(m protoreflect.Message) bool {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	fields := m.Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		switch {
		case f.Message() == nil || !m.Has(f):
		case f.IsList():
			list := m.Get(f).List()
			for i := range list.Len() {
				if hasUnknown(list.Get(i).Message()) {
					return true
				}
			}
		case hasUnknown(m.Get(f).Message()):
			return true
		}
	}
	return false
}

// findUnknown walks a message in the order of its description.
func findUnknown(m protoreflect.Message, at string, bad *[]registry.Problem) {
	if rest := m.GetUnknown(); len(rest) > 0 && len(*bad) < unknownMax {
		number, _, _ := protowire.ConsumeTag(rest)
		*bad = append(*bad, registry.Problem{Field: at + fmt.Sprint(number), Reason: fmt.Sprintf("is no field that this member knows in %s: leave it out, or ask a member of a newer version", m.Descriptor().Name())})
	}
	fields := m.Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		switch {
		case f.Message() == nil || !m.Has(f):
		case f.IsList():
			list := m.Get(f).List()
			for i := range list.Len() {
				findUnknown(list.Get(i).Message(), fmt.Sprintf("%s%s[%d].", at, f.Name(), i), bad)
			}
		default:
			findUnknown(m.Get(f).Message(), fmt.Sprintf("%s%s.", at, f.Name()), bad)
		}
	}
}

// levelFields are where the messages have what the registry has beside the service.
var levelFields = map[string]string{
	"organization": "levels.organization", "businessDomain": "levels.business_domain", "capabilityDomain": "levels.capability_domain",
	"application": "levels.application", "role": "levels.role",
}

// filterFields are where the messages of lists have what the registry calls by the
// names of a query's parameters.
var filterFields = map[string]string{
	"namespace": "filter.namespace", "service": "filter.services", "servicePrefix": "filter.service_prefixes",
	"group": "filter.groups", "zone": "filter.zones", "region": "filter.regions", "version": "filter.versions",
	"endpoint": "filter.endpoints", "selector": "filter.selectors", "label": "filter.labels", "status": "filter.statuses",
}

// field is what the message calls a field: the registry has it as JSON does.
func (m *method) field(name string) string {
	if own := m.fields[name]; own != "" {
		return own
	}
	return snake(name)
}

// snake writes leaseTtlSeconds as lease_ttl_seconds, and leaves what is in quotes alone.
func snake(name string) string {
	var out strings.Builder
	quoted := false
	for i, c := range name {
		if c == '"' {
			quoted = !quoted
		}
		if unicode.IsUpper(c) && !quoted {
			if i > 0 {
				out.WriteByte('_')
			}
			c = unicode.ToLower(c)
		}
		out.WriteRune(c)
	}
	return out.String()
}
