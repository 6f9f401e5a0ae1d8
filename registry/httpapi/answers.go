package httpapi

import (
	"reflect"

	"github.com/stellmap/stellmap/registry"
)

// What the answers look like that an encoder writes by hand. The types here describe
// them and are never filled; the tests compare every answer with them.

// shownInstanceFields are the fields of an instance, of which a list has those that were asked for.
type shownInstanceFields struct{}

func (shownInstanceFields) describe(s *schemas) *schema {
	return s.handWritten("Instance", func() *schema { return tableSchema(s, givenFields) })
}

type shownServiceFields struct{}

func (shownServiceFields) describe(s *schemas) *schema {
	return s.handWritten("Service", func() *schema { return tableSchema(s, serviceFields) })
}

// tableSchema describes items that have fields of a table; none of them must be there.
func tableSchema[T any](s *schemas, table []listField[T]) *schema {
	out := &schema{Type: []string{"object"}, Properties: make(map[string]*schema)}
	for _, f := range table {
		if _, flat := f.of.(levelsBody); flat { // a field of five keys
			for _, level := range fieldsOf(reflect.TypeOf(f.of)) {
				out.Properties[nameOf(level)] = s.field(nameOf(level), level.Type)
			}
			continue
		}
		out.Properties[f.name] = s.field(f.name, reflect.TypeOf(f.of))
	}
	return out
}

type shownCondition struct {
	Source    string `json:"source"`
	Name      string `json:"name,omitempty"`
	Status    string `json:"status"`
	Since     string `json:"since"`
	Until     string `json:"until,omitempty"`
	Reason    string `json:"reason,omitempty"`
	By        string `json:"by,omitempty"`
	HeldUntil string `json:"heldUntil,omitempty"`
}

// shownWithheld names its instance where it is not that of one.
type shownWithheld struct {
	Instance string `json:"instance,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	Reason   string `json:"reason"`
}

type shownOverride struct {
	InstanceID string `json:"instanceId"`
	shownCondition
}

type shownServiceEndpoint struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
}

type shownProtection struct {
	Since     string  `json:"since"`
	Healthy   int64   `json:"healthy"`
	Total     int64   `json:"total"`
	Threshold float64 `json:"threshold"`
	Why       string  `json:"why"`
}

// A shownPause is where nothing expires.
type shownPause struct {
	Scope           string `json:"scope"`
	Namespace       string `json:"namespace,omitempty"`
	Service         string `json:"service,omitempty"`
	Zone            string `json:"zone,omitempty"`
	Since           string `json:"since"`
	Reason          string `json:"reason"`
	Suspects        int64  `json:"suspects"`
	Leases          int64  `json:"leases"`
	EndsAtSuspects  int64  `json:"endsAtSuspects"`
	EndsAtTheLatest string `json:"endsAtTheLatest"`
}

type shownPauses struct {
	Revision    int64        `json:"revision"`
	Protections []shownPause `json:"protections"`
}

// A shownPage is a page of a list; with count=only it has no items.
type shownPage struct {
	Revision   int64  `json:"revision"`
	NextCursor string `json:"nextCursor,omitempty"`
	Count      int64  `json:"count,omitempty"`
}

type shownInstanceList struct {
	shownPage
	Failover   string                `json:"failover,omitempty"` // this and the next: of a list with failover
	FromRegion string                `json:"fromRegion,omitempty"`
	FromZone   string                `json:"fromZone,omitempty"`
	More       bool                  `json:"more,omitempty"`
	Regions    []discoveredRegion    `json:"regions,omitempty"`
	Instances  []shownInstanceFields `json:"instances,omitempty"`
}

type shownServiceList struct {
	shownPage
	Services []shownServiceFields `json:"services,omitempty"`
}

type shownNamespaceItem struct {
	Namespace   string          `json:"namespace"`
	Services    int64           `json:"services"`
	Instances   int64           `json:"instances"`
	Passing     int64           `json:"passing"`
	Description string          `json:"description,omitempty"`
	Alive       int64           `json:"alive,omitempty"`
	Quota       *registry.Quota `json:"quota,omitempty"`
}

type shownNamespaces struct {
	Revision   int64                `json:"revision"`
	Namespaces []shownNamespaceItem `json:"namespaces"`
}

type shownLease struct {
	LeaseID    string             `json:"leaseId"`
	Revision   int64              `json:"revision"`
	TTLSeconds int64              `json:"ttlSeconds"`
	CreatedAt  string             `json:"createdAt"`
	EndedAt    string             `json:"endedAt,omitempty"`
	Instances  []shownLeaseMember `json:"instances"`
}

// A shownLeaseMember lives under a lease.
type shownLeaseMember struct {
	Namespace  string `json:"namespace"`
	Service    string `json:"service"`
	InstanceID string `json:"instanceId"`
	Status     string `json:"status"`
}

type shownServiceReports struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	Revision  int64  `json:"revision"`
	v2ReportRules
	Instances []shownReportedInstance `json:"instances"`
}

type shownReportedInstance struct {
	InstanceID string        `json:"instanceId"`
	Reporters  int64         `json:"reporters"`
	Reason     string        `json:"reason,omitempty"`
	Reports    []shownReport `json:"reports,omitempty"`
}

type shownReport struct {
	Reporter string `json:"reporter,omitempty"`
	From     string `json:"from"`
	Since    string `json:"since"`
	Last     string `json:"last"`
	Times    int64  `json:"times"`
}

type shownTargets struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// A shownPoll answers a watch with wait.
type shownPoll struct {
	Revision  int64                 `json:"revision"`
	Resume    string                `json:"resume"`
	Type      string                `json:"type"`
	Reason    string                `json:"reason,omitempty"`
	Instances []shownInstanceFields `json:"instances,omitempty"`
	Changes   []shownChange         `json:"changes,omitempty"`
}

type shownChange struct {
	Revision   int64               `json:"revision"`
	Type       string              `json:"type"`
	Created    bool                `json:"created,omitempty"`
	Namespace  string              `json:"namespace"`
	Service    string              `json:"service"`
	InstanceID string              `json:"instanceId"`
	Instance   shownInstanceFields `json:"instance,omitempty"`
}

// v1Answer is what writes over v1 are answered with.
type v1Answer struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type v1List struct {
	Code string       `json:"code"`
	Data []v1Instance `json:"data"`
}

type v1Instance struct {
	Namespace         string            `json:"namespace"`
	Service           string            `json:"service"`
	Organization      string            `json:"organization,omitempty"`
	BusinessDomain    string            `json:"businessDomain,omitempty"`
	CapabilityDomain  string            `json:"capabilityDomain,omitempty"`
	Application       string            `json:"application,omitempty"`
	Role              string            `json:"role,omitempty"`
	InstanceID        string            `json:"instanceId"`
	Zone              string            `json:"zone,omitempty"`
	Labels            map[string]string `json:"labels,omitempty"`
	Metadata          map[string]string `json:"metadata,omitempty"`
	Endpoints         []endpointBody    `json:"endpoints"`
	LeaseTTLSeconds   int64             `json:"leaseTtlSeconds"`
	RegisteredAtUnix  int64             `json:"registeredAtUnix"`
	LastHeartbeatUnix int64             `json:"lastHeartbeatUnix"`
}
