package main

import (
	"encoding/json"
	"net/url"
)

// The server's JSON, as far as it is shown or sent. Fields that a newer server
// adds are passed over.

// instanceRef names one instance.
type instanceRef struct{ namespace, service, id string }

// A holder says whose call it is that changes an instance.
type holder struct {
	token string // the lease token; "" = none
	force bool   // an operator's, who has the admin token
}

// leaseTokenHeader is where the lease token goes.
const leaseTokenHeader = "X-StellMap-Lease-Token"

func (r instanceRef) String() string { return r.namespace + "/" + r.service + "/" + r.id }

// short is the name within its namespace.
func (r instanceRef) short() string { return r.service + "/" + r.id }

// path is where the API has the instance; "" for id is where it has all of the service.
func (r instanceRef) path() string {
	p := namespacePath(r.namespace) + "/services/" + url.PathEscape(r.service) + "/instances"
	if r.id != "" {
		p += "/" + url.PathEscape(r.id)
	}
	return p
}

func namespacePath(namespace string) string { return "/api/v2/namespaces/" + url.PathEscape(namespace) }

type endpoint struct {
	Name     string `json:"name,omitempty"`
	Protocol string `json:"protocol"`
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Path     string `json:"path,omitempty"`
	Weight   int    `json:"weight,omitempty"`
}

// registration is the body of a register.
type registration struct {
	Group           string            `json:"group,omitempty"`
	Zone            string            `json:"zone,omitempty"`
	Version         string            `json:"version,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	Metadata        map[string]string `json:"metadata,omitempty"`
	Endpoints       []endpoint        `json:"endpoints"`
	Checks          []check           `json:"checks,omitempty"`
	LeaseTTLSeconds int64             `json:"leaseTtlSeconds"`
}

// written is what a write is answered with.
type written struct {
	Namespace  string `json:"namespace"`
	Service    string `json:"service"`
	InstanceID string `json:"instanceId"`
	Revision   uint64 `json:"revision"`
	Created    *bool  `json:"created,omitempty"`    // of a register
	Changed    *bool  `json:"changed,omitempty"`    // of a register
	Deleted    *bool  `json:"deleted,omitempty"`    // of a deregister
	LeaseToken string `json:"leaseToken,omitempty"` // of a register
}

type withheld struct {
	Instance string `json:"instance,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	Reason   string `json:"reason"`
}

type instance struct {
	Namespace        string            `json:"namespace"`
	Service          string            `json:"service"`
	InstanceID       string            `json:"instanceId"`
	Group            string            `json:"group,omitempty"`
	Zone             string            `json:"zone,omitempty"`
	Region           string            `json:"region"`
	Origin           *origin           `json:"origin,omitempty"` // of another region's
	Version          string            `json:"version,omitempty"`
	Organization     string            `json:"organization,omitempty"`
	BusinessDomain   string            `json:"businessDomain,omitempty"`
	CapabilityDomain string            `json:"capabilityDomain,omitempty"`
	Application      string            `json:"application,omitempty"`
	Role             string            `json:"role,omitempty"`
	Labels           map[string]string `json:"labels,omitempty"`
	Metadata         map[string]string `json:"metadata,omitempty"`
	Endpoints        []endpoint        `json:"endpoints"`
	Checks           []check           `json:"checks,omitempty"`
	LeaseTTLSeconds  int64             `json:"leaseTtlSeconds"`
	LeaseID          string            `json:"leaseId,omitempty"` // that it shares with others
	RegisteredAt     string            `json:"registeredAt"`      // times stay as the server wrote them
	LastHeartbeatAt  string            `json:"lastHeartbeatAt"`
	Status           string            `json:"status"`
	Protected        bool              `json:"protected,omitempty"`
	StatusSince      string            `json:"statusSince,omitempty"`
	Conditions       []condition       `json:"conditions,omitempty"`
	ExpiredAt        string            `json:"expiredAt,omitempty"`
	Revision         uint64            `json:"revision"`
	Counter          uint64            `json:"counter"`
	Withheld         []withheld        `json:"withheld,omitempty"`
}

// origin is where an instance of another region is from.
type origin struct {
	ClusterID  uint64 `json:"clusterId"`
	InstanceID string `json:"instanceId"`
	Revision   uint64 `json:"revision"`
	SeenAt     string `json:"seenAt"`
	Status     string `json:"status,omitempty"` // that its region told, where the copy's age has made another of it
}

// A condition is one thing that is said of an instance.
type condition struct {
	Source string `json:"source"`
	Name   string `json:"name,omitempty"`
	Status string `json:"status"`
	Since  string `json:"since"`
	Until  string `json:"until,omitempty"`
	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"`

	HeldUntil string `json:"heldUntil,omitempty"` // of a check that flaps
}

// A keptOverride is what an operator said of an instance that is gone.
type keptOverride struct {
	InstanceID string `json:"instanceId"`
	condition
}

type instanceList struct {
	Revision  uint64     `json:"revision"`
	Instances []instance `json:"instances"`
}

type service struct {
	Namespace       string            `json:"namespace"`
	Service         string            `json:"service"`
	Instances       int               `json:"instances"`
	Passing         int               `json:"passing"`
	Statuses        map[string]int    `json:"statuses,omitempty"`
	Protected       json.RawMessage   `json:"protected,omitempty"`
	Matching        int               `json:"matching"`
	Endpoints       []serviceEndpoint `json:"endpoints"`
	Overrides       []keptOverride    `json:"overrides,omitempty"`
	Protections     []protection      `json:"protections,omitempty"`
	CreatedRevision uint64            `json:"createdRevision"`
	Revision        uint64            `json:"revision"`
	Withheld        []withheld        `json:"withheld,omitempty"`
}

type serviceEndpoint struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
}

type serviceList struct {
	Revision uint64    `json:"revision"`
	Services []service `json:"services"`
}

type namespace struct {
	Namespace   string `json:"namespace"`
	Services    int    `json:"services"`
	Instances   int    `json:"instances"`
	Passing     int    `json:"passing"`
	Description string `json:"description,omitempty"`
	Alive       int    `json:"alive,omitempty"` // instances that count for the quota
	Quota       *quota `json:"quota,omitempty"`
}

type quota struct {
	Services  *int64 `json:"services,omitempty"`
	Instances *int64 `json:"instances,omitempty"`
}

type namespaceList struct {
	Revision   uint64      `json:"revision"`
	Namespaces []namespace `json:"namespaces"`
}

type member struct {
	ID      uint64  `json:"id"`
	Role    string  `json:"role"`
	Voter   bool    `json:"voter"`
	Learner bool    `json:"learner"`
	Behind  *uint64 `json:"behindEntries,omitempty"` // log entries that it lacks, where the leader could be asked
	Heard   *bool   `json:"heard,omitempty"`         // by the leader, lately
	Local   bool    `json:"local"`
	HTTP    string  `json:"http"`
	XDS     string  `json:"xds"`
	GRPC    string  `json:"grpc"`
	Admin   string  `json:"admin"`
}

type memberList struct {
	ClusterID   uint64       `json:"clusterId"`
	LocalNodeID uint64       `json:"localNodeId"`
	LeaderID    uint64       `json:"leaderId"`
	Region      string       `json:"region"`
	Term        uint64       `json:"term"`
	Revision    uint64       `json:"revision"`
	Members     []member     `json:"members"`
	StateCheck  *stateCheck  `json:"stateCheck,omitempty"` // an older server says nothing of it
	Replacement *replacement `json:"replacement,omitempty"`
}

// stateCheck is how far the members' states are known to be equal.
type stateCheck struct {
	Index     uint64   `json:"index"` // they were compared as they were after this entry; 0 = not yet
	Equal     []uint64 `json:"equal"`
	Different []uint64 `json:"different"`
	Missing   []uint64 `json:"missing"` // have not said yet
	Split     bool     `json:"split"`   // no state has a majority: nothing is written
}

// replacement is one voter taking another's place.
type replacement struct {
	NodeID    uint64 `json:"nodeId"`
	NewNodeID uint64 `json:"newNodeId"`
	Stage     string `json:"stage"`
}

// problem is application/problem+json.
type problem struct {
	Code   string         `json:"code"`
	Title  string         `json:"title"`
	Detail string         `json:"detail"`
	Errors []fieldProblem `json:"errors"`
}
