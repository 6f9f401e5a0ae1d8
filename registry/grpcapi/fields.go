package grpcapi

import (
	"strings"
	"unicode"
)

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
