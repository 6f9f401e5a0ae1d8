package xds

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
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
// rules before it is published. Where it does not keep to them the service is treated,
// in that respect alone, as by the newest of its earlier edits that does, and where
// the registry keeps none as if it had no policy; and it says so. The edits are
// replicated, so that all members come to the same, after a restart too.

// A past gives the earlier edits of a service's policy, the newest first. It is
// asked where the policy as it is will not do.
type past func(*registry.Service) []registry.Edit[registry.Policy]

// A lapse is what proxies would refuse of a policy, and the edit that stands in for it; 0 = none does.
type lapse struct {
	wrong  error
	edit   uint64
	policy *registry.Policy // of that edit; nil = none
}

// earlier are the edits before the one that a service shows.
func (c *cache) earlier(s *registry.Service) []registry.Edit[registry.Policy] {
	d := c.machine.Policy(s.Key)
	if d == nil {
		return nil
	}
	edits := slices.Clone(d.Edits)
	slices.Reverse(edits)
	for n, e := range edits {
		if e.Revision <= s.Revision {
			return edits[n+1:]
		}
	}
	return nil
}

// fallBack finds the newest edit that a check has nothing against, if it has something
// against the policy as it is; nil if it has not.
func fallBack(s *registry.Service, before past, check func(*registry.Policy) error) *lapse {
	if s.Policy == nil {
		return nil
	}
	wrong := check(s.Policy)
	if wrong == nil {
		return nil
	}
	for _, e := range before(s) {
		if e.Content != nil && check(e.Content) == nil {
			return &lapse{wrong: wrong, edit: e.Version, policy: e.Content}
		}
		if e.Content == nil { // it was taken back then, and what was before that is no longer meant
			break
		}
	}
	return &lapse{wrong: wrong}
}

// soundRules are the rules by which the routes to a service are made.
func soundRules(s *registry.Service, before past) (routeRules, *lapse) {
	if len(s.Endpoints) == 0 || rulesOf(s.Policy).none() {
		return rulesOf(s.Policy), nil
	}
	broken := fallBack(s, before, func(p *registry.Policy) error { return checkRules(s, rulesOf(p)) })
	if broken != nil {
		return rulesOf(broken.policy), broken
	}
	return rulesOf(s.Policy), nil
}

// checkRules makes the host that a client has who has all that it leads to.
func checkRules(s *registry.Service, rules routeRules) error {
	retry, err := retryPolicy()
	if err != nil {
		return err
	}
	stem := primaryStem(s.Key)
	host, err := virtualHost(hostRoute{
		cluster: stem, hosts: hostsOf(stem, 0), dialect: dialectOf(s.Endpoints[0].Protocol), rules: rules, known: func(string) bool { return true },
	}, retry)
	if err != nil {
		return err
	}
	return cmp.Or(host.ValidateAll(), noNegativeTimes(host))
}

// soundCluster is a cluster that proxies take. The rules are those of its routes.
func soundCluster(s *registry.Service, endpoint int, rules routeRules, before past) (*clusterv3.Cluster, *lapse, error) {
	var c *clusterv3.Cluster // of the check that was the last, and dear enough to be the only one
	by := func(p *registry.Policy) error {
		treated := *s
		treated.Policy = p
		var err error
		c, err = checkedCluster(&treated, endpoint, rules)
		return err
	}
	broken := fallBack(s, before, by)
	if s.Policy != nil && (broken == nil || broken.policy != nil) {
		return c, broken, nil
	}
	err := by(nil)
	return c, broken, err
}

func checkedCluster(s *registry.Service, endpoint int, rules routeRules) (*clusterv3.Cluster, error) {
	c, err := buildCluster(s, endpoint, rules)
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

// soundAssignment is a service by whose policy an assignment can say what it says beside its hosts.
func soundAssignment(s *registry.Service, before past) (*registry.Service, *lapse) {
	broken := fallBack(s, before, checkAssignment)
	if broken == nil {
		return s, nil
	}
	sound, policy, failover := *s, *s.Policy, registry.Failover{}
	if policy.Failover != nil {
		failover = *policy.Failover
	}
	policy.Drops, failover.OverprovisioningPercent = nil, nil
	if p := broken.policy; p != nil {
		policy.Drops = p.Drops
		if p.Failover != nil {
			failover.OverprovisioningPercent = p.Failover.OverprovisioningPercent
		}
	}
	policy.Failover, sound.Policy = &failover, &policy
	return &sound, broken
}

func checkAssignment(p *registry.Policy) error {
	policy := assignmentPolicy(p)
	for _, d := range policy.GetDropOverloads() {
		if d.GetDropPercentage().GetNumerator() > 100 {
			return fmt.Errorf("drops: %s is more than everything", d.GetCategory())
		}
	}
	return policy.ValidateAll()
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
