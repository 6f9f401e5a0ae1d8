package client

import (
	"net"
	"strconv"
	"strings"
	"time"

	stellmapv1 "github.com/stellmap/stellmap/api/proto/stellmap/v1"
)

// Instance is one of a discovered service. It is shared by all who read it: nobody may
// change it.
type Instance struct {
	Namespace string
	Service   string
	ID        string
	Group     string            `json:",omitempty"`
	Zone      string            `json:",omitempty"`
	Region    string            `json:",omitempty"`
	Version   string            `json:",omitempty"`
	Labels    map[string]string `json:",omitempty"`
	Metadata  map[string]string `json:",omitempty"`
	Endpoints []Endpoint
	Status    Status
	Protected bool   `json:",omitempty"` // handed out although its status says otherwise, since too few of its service are well
	Revision  uint64 // of its last change
	Since     time.Time
}

// Endpoint is where an instance answers.
type Endpoint struct {
	Name     string // "" = the protocol, where it is registered
	Protocol string
	Host     string
	Port     int
	Path     string `json:",omitempty"`
	Weight   int    // 0 = 100, where it is registered
}

// Address is host:port.
func (e Endpoint) Address() string { return net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) }

// Status is how an instance is; docs/states.md says what they mean.
type Status string

const (
	Passing  Status = "passing"
	Warning  Status = "warning"
	Suspect  Status = "suspect"
	Critical Status = "critical"
	Draining Status = "draining"
	Expired  Status = "expired"
	Disabled Status = "disabled"
)

func statusOf(s stellmapv1.Status) Status {
	return Status(strings.ToLower(strings.TrimPrefix(s.String(), "STATUS_")))
}

func instanceOf(m *stellmapv1.Instance) *Instance {
	i := &Instance{
		Namespace: m.GetNamespace(), Service: m.GetService(), ID: m.GetInstanceId(), Group: m.GetGroup(), Zone: m.GetZone(), Region: m.GetRegion(),
		Version: m.GetVersion(), Labels: mapOf(m.GetLabels()), Metadata: mapOf(m.GetMetadata()), Status: statusOf(m.GetStatus()),
		Protected: m.GetProtected(), Revision: m.GetRevision(), Since: m.GetStatusSince().AsTime(),
		Endpoints: make([]Endpoint, 0, len(m.GetEndpoints())),
	}
	for _, e := range m.GetEndpoints() {
		i.Endpoints = append(i.Endpoints, Endpoint{Name: e.GetName(), Protocol: e.GetProtocol(), Host: e.GetHost(), Port: int(e.GetPort()), Path: e.GetPath(), Weight: int(e.GetWeight())})
	}
	return i
}

func mapOf(pairs []*stellmapv1.Pair) map[string]string {
	if len(pairs) == 0 {
		return nil
	}
	m := make(map[string]string, len(pairs))
	for _, p := range pairs {
		m[p.GetKey()] = p.GetValue()
	}
	return m
}

// Endpoint is the first of a name or, where none has it, of a protocol; of "" the first.
func (i *Instance) Endpoint(nameOrProtocol string) (Endpoint, bool) {
	for _, by := range []func(Endpoint) string{func(e Endpoint) string { return e.Name }, func(e Endpoint) string { return e.Protocol }} {
		for _, e := range i.Endpoints {
			if nameOrProtocol == "" || by(e) == nameOrProtocol {
				return e, true
			}
		}
	}
	return Endpoint{}, false
}

// standing is what an instance is good for.
type standing int

const (
	out  standing = iota // nobody is to count on it: it drains or is disabled
	ill                  // it counts among those that should be there, and is sent nothing
	last                 // for when there is no better
	well
)

// standing follows the table of docs/states.md, as xDS does.
func (i *Instance) standing() standing {
	switch {
	case i.Status == Disabled:
		return out
	case i.Protected, i.Status == Passing, i.Status == Warning:
		return well
	case i.Status == Suspect:
		return last
	case i.Status == Draining:
		return out
	}
	return ill
}
