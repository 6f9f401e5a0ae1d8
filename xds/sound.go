package xds

import (
	"cmp"
	"errors"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stellmap/stellmap/registry"
)

// Envoy refuses a whole route table for one route, and says nothing for minutes for
// one cluster. The registry lets no policy in that would come to that; but policies
// outlive the version that has let them in, and what a proxy takes is not what
// the registry knows. So whatever a policy has a hand in is held against Envoy's
// rules before it is published. Where it does not keep to them the service is treated
// as if it had no policy, in that respect alone, and says so.

// soundHost is a host that proxies take, and what is wrong with the one of its policy if it is not that.
func soundHost(r hostRoute, build func(hostRoute) (*routev3.VirtualHost, error)) (*routev3.VirtualHost, error, error) {
	if r.rules.none() { // it is checked when it is packed in any case
		host, err := build(r)
		return host, nil, err
	}
	host, wrong := checkedHost(r, build)
	if wrong == nil {
		return host, nil, nil
	}
	r.rules = routeRules{}
	host, err := checkedHost(r, build)
	return host, wrong, err
}

func checkedHost(r hostRoute, build func(hostRoute) (*routev3.VirtualHost, error)) (*routev3.VirtualHost, error) {
	host, err := build(r)
	if err != nil {
		return nil, err
	}
	return host, cmp.Or(host.ValidateAll(), noNegativeTimes(host))
}

// soundCluster is the same for a cluster.
func soundCluster(s *registry.Service, endpoint int) (*clusterv3.Cluster, error, error) {
	c, wrong := checkedCluster(s, endpoint)
	if wrong == nil || s.Policy == nil {
		return c, nil, wrong
	}
	plain := *s
	plain.Policy = nil
	c, err := checkedCluster(&plain, endpoint)
	return c, wrong, err
}

func checkedCluster(s *registry.Service, endpoint int) (*clusterv3.Cluster, error) {
	c, err := buildCluster(s, endpoint)
	if err != nil {
		return nil, err
	}
	if err := c.ValidateAll(); err != nil {
		return nil, err
	}
	return c, cmp.Or(clusterRules(c), noNegativeTimes(c))
}

// clusterRules are those of Envoy that stand in no message: what is found out only
// when a cluster is made.
func clusterRules(c *clusterv3.Cluster) error {
	o := c.GetOutlierDetection()
	if base, most := o.GetBaseEjectionTime().AsDuration(), o.GetMaxEjectionTime().AsDuration(); base > most {
		return fmt.Errorf("outlierDetection: an ejection of %s is longer than the longest of %s", base, most)
	}
	if ring := c.GetRingHashLbConfig(); ring.GetMinimumRingSize().GetValue() > ring.GetMaximumRingSize().GetValue() && ring.GetMaximumRingSize() != nil {
		return errors.New("loadBalancing: the smallest ring is larger than the largest")
	}
	return nil
}

// soundPolicy is the same for what an assignment says beside its hosts.
func soundPolicy(p *registry.Policy) (*endpointv3.ClusterLoadAssignment_Policy, error) {
	policy := assignmentPolicy(p)
	wrong := policy.ValidateAll()
	for _, d := range policy.GetDropOverloads() {
		if d.GetDropPercentage().GetNumerator() > 100 {
			wrong = fmt.Errorf("drops: %s is more than everything", d.GetCategory())
		}
	}
	if wrong != nil {
		policy = assignmentPolicy(nil)
	}
	return policy, wrong
}

// noNegativeTimes is a rule that stands in the messages only here and there.
func noNegativeTimes(m proto.Message) error {
	return protorange.Range(m.ProtoReflect(), func(at protopath.Values) error {
		last := at.Index(-1)
		value, isMessage := last.Value.Interface().(protoreflect.Message)
		if !isMessage {
			return nil
		}
		if d, isTime := value.Interface().(*durationpb.Duration); isTime && d.AsDuration() < 0 {
			return fmt.Errorf("%s is negative: %s", at.Path, d.AsDuration())
		}
		return nil
	})
}
