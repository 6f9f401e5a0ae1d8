package client

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/balancer/pickfirst"
	"google.golang.org/grpc/connectivity"
)

// policy is the name of our load balancing policy, which the resolver asks for: calls go
// where a Picker would pick, among those that there is a connection to.
const policy = "stellmap"

// grpc-go finds policies by name in a list of its own, which is filled at init only.
func init() { balancer.Register(policyBuilder{}) }

// picksKey is the attribute of what a resolver has told that says what all of it is.
type picksKey struct{}

// placed is what is known of a service, and where the caller is.
type placed struct {
	*picks
	zone, region string
}

type policyBuilder struct{}

func (policyBuilder) Name() string { return policy }

func (policyBuilder) Build(cc balancer.ClientConn, options balancer.BuildOptions) balancer.Balancer {
	s := &spreader{ClientConn: cc}
	s.Balancer = endpointsharding.NewBalancer(s, options, balancer.Get(pickfirst.Name).Build, endpointsharding.Options{})
	return s
}

// A spreader is a connection's balancer. grpc-go's own keeps a connection to each
// endpoint; what this adds is which of them a call takes.
type spreader struct {
	balancer.Balancer
	balancer.ClientConn // of the children, whose states come through UpdateState

	mu  sync.Mutex // guards what follows
	all *placed
}

func (s *spreader) UpdateClientConnState(state balancer.ClientConnState) error {
	all, ok := state.ResolverState.Attributes.Value(picksKey{}).(*placed)
	if !ok {
		return fmt.Errorf("client: the policy %s is for targets %s:///… only", policy, Scheme)
	}
	s.mu.Lock()
	s.all = all
	s.mu.Unlock()
	return s.Balancer.UpdateClientConnState(balancer.ClientConnState{ResolverState: pickfirst.EnableHealthListener(state.ResolverState)})
}

// UpdateState hands the state of the connections on, with a picker of ours.
func (s *spreader) UpdateState(state balancer.State) {
	s.mu.Lock()
	all := s.all
	s.mu.Unlock()
	children := endpointsharding.ChildStatesFromPicker(state.Picker)
	switch {
	case state.ConnectivityState == connectivity.Ready:
		state.Picker = newCallPicker(all, children)
	case len(children) == 0 && all != nil:
		state.Picker = base.NewErrPicker(fmt.Errorf("%w: %d with such an endpoint are known, and none that callers may be sent to", ErrNone, len(all.all)))
	}
	s.ClientConn.UpdateState(state)
}

// callPicker picks a connection for a call.
type callPicker struct {
	chooser  *chooser
	children []balancer.Picker // as the chooser numbers them; nil = there is no connection
}

// newCallPicker makes a picker of the connections that are ready. An endpoint without one
// is as good as ill, so that its zone is not asked for more than the others of it can take.
func newCallPicker(all *placed, states []endpointsharding.ChildState) *callPicker {
	ready := make(map[string]balancer.Picker)
	for _, child := range states {
		if child.State.ConnectivityState == connectivity.Ready {
			ready[child.Endpoint.Addresses[0].Addr] = child.State.Picker
		}
	}
	p := &callPicker{}
	var candidates []candidate
	for _, one := range all.all {
		c := candidateOf(one.Instance, one.Endpoint, all.zone, all.region)
		child := ready[one.Address()]
		if child == nil {
			c.standing = min(c.standing, ill)
		}
		candidates, p.children = append(candidates, c), append(p.children, child)
	}
	p.chooser = newChooser(candidates)
	return p
}

func (p *callPicker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	n, ok := p.chooser.pick(rand.Float64())
	if !ok {
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable // until the next state
	}
	return p.children[n].Pick(info)
}
