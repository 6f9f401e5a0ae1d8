package httpapi

import "github.com/stellmap/stellmap/registry"

// The bodies of both surfaces are made of these. What a body must not have in
// one of them is not in its type there, and so is refused as unknown.

// levelsBody is the five levels of a service name.
type levelsBody struct {
	Organization     string `json:"organization"`
	BusinessDomain   string `json:"businessDomain"`
	CapabilityDomain string `json:"capabilityDomain"`
	Application      string `json:"application"`
	Role             string `json:"role"`
}

func (b *levelsBody) levels() registry.Levels { return registry.Levels(*b) }

// refBody is the name of an instance.
type refBody struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	levelsBody
	InstanceID string `json:"instanceId"`
}

func (b *refBody) ref() registry.InstanceRef {
	return registry.InstanceRef{Namespace: b.Namespace, Service: b.Service, Levels: b.levels(), ID: b.InstanceID}
}

// workloadBody is what a workload says of itself, but for its name.
type workloadBody struct {
	Zone            string            `json:"zone"`
	Labels          map[string]string `json:"labels"`
	Metadata        map[string]string `json:"metadata"`
	Endpoints       []endpointBody    `json:"endpoints"`
	LeaseTTLSeconds int64             `json:"leaseTtlSeconds"`
}

type endpointBody struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Host     string `json:"host"`
	Port     int32  `json:"port"`
	Path     string `json:"path"`
	Weight   int32  `json:"weight"`
}

// checkBody is how the cluster is to try whether an endpoint works.
type checkBody struct {
	Name            string `json:"name"`
	Kind            string `json:"kind"`
	Endpoint        string `json:"endpoint"`
	Path            string `json:"path"`
	Service         string `json:"service"`
	Send            string `json:"send"`
	Expect          string `json:"expect"`
	ServerName      string `json:"serverName"`
	TLSSkipVerify   bool   `json:"tlsSkipVerify"`
	IntervalSeconds int64  `json:"intervalSeconds"`
	TimeoutSeconds  int64  `json:"timeoutSeconds"`
	Rise            int32  `json:"rise"`
	Fall            int32  `json:"fall"`
	Initial         string `json:"initial"`
}

// v2WorkloadBody is what a workload can say of itself in v2.
type v2WorkloadBody struct {
	Group   string      `json:"group"`
	Version string      `json:"version"`
	Checks  []checkBody `json:"checks"`
	LeaseID string      `json:"leaseId"`
	workloadBody
}

// registration joins a name and what its workload says.
func (b *v2WorkloadBody) registration(ref registry.InstanceRef) registry.Registration {
	out := b.workloadBody.registration(ref)
	out.Group, out.Version, out.LeaseID = b.Group, b.Version, b.LeaseID
	for _, c := range b.Checks {
		out.Checks = append(out.Checks, registry.Check(c))
	}
	return out
}

// registration joins a name and what its workload says.
func (b *workloadBody) registration(ref registry.InstanceRef) registry.Registration {
	endpoints := make([]registry.Endpoint, len(b.Endpoints))
	for i, e := range b.Endpoints {
		endpoints[i] = registry.Endpoint(e)
	}
	return registry.Registration{
		Namespace: ref.Namespace, Service: ref.Service, Levels: ref.Levels, ID: ref.ID, Holder: ref.Holder,
		Zone: b.Zone, Labels: b.Labels, Metadata: b.Metadata, Endpoints: endpoints, LeaseTTLSeconds: b.LeaseTTLSeconds,
	}
}
