package xds

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/stellmap/stellmap/registry"
)

// What a client reports of its calls to one instance can be a report of the instance:
// the same that anybody makes over HTTP, counted by the same quorum of addresses, with
// the same bounds. It is for the service's policy to want it. Only while some policy
// does are clients asked for their calls by instance; gRPC clients know of none.

// The bounds of what becomes of one message.
const (
	loadVotesMax  = 100             // reports of instances; the rest is left out, and counted
	loadVotesTime = 2 * time.Second // in which the leader must have taken them
	reporterMax   = 128             // bytes of a node's id that are its name as a reporter
)

// A vote is what one client says of one instance.
type vote struct {
	key     registry.InstanceKey
	failing bool
	reason  string
}

// judge notes whether a service's policy wants reports of its instances from load.
func (d *directory) judge(k registry.ServiceKey, s *registry.Service) {
	if s != nil {
		if rules, wanted := s.Policy.LoadRules(); wanted {
			d.judged[k] = rules
			return
		}
	}
	delete(d.judged, k)
}

// judging says that some policy wants reports of instances from load.
func (c *cache) judging() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.directory.judged) > 0
}

// judged is whose a cluster is, by which rules its instances are judged, and which
// endpoint of theirs it leads to; false where its policy does not want it.
func (c *cache) judged(cluster string) (registry.ServiceKey, registry.LoadRules, string, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	claim := c.directory.clusters[cluster]
	if claim == nil {
		return registry.ServiceKey{}, registry.LoadRules{}, "", false
	}
	rules, wanted := c.directory.judged[claim.listing.key]
	return claim.listing.key, rules, claim.name.Name, wanted
}

// byInstance says whether clients of a node are to report their calls by instance.
func (s *Server) byInstance(n *node) bool {
	return s.accuse != nil && n.kind != kindGRPC && s.cache.judging()
}

// vote tells the registry what a client's report says of instances.
func (s *Server) vote(ctx context.Context, r *reporter, stats []*endpointv3.ClusterStats) {
	if !r.byInstance {
		return
	}
	votes := r.turn(s.votes(r, stats))
	ctx, cancel := context.WithTimeout(ctx, loadVotesTime)
	defer cancel()
	for n, v := range votes {
		if n == loadVotesMax || ctx.Err() != nil {
			s.metrics.loadVotes[voteLeftOut].Add(uint64(len(votes) - n))
			return
		}
		s.metrics.loadVotes[s.cast(ctx, r, v)].Add(1)
	}
}

// turn has those that were left out of one message come first in the next.
func (r *reporter) turn(votes []vote) []vote {
	if len(votes) <= loadVotesMax {
		return votes
	}
	r.turned = (r.turned + loadVotesMax) % len(votes)
	return append(votes[r.turned:], votes[:r.turned]...)
}

// votes are what a report says of instances: of those that fail, and of those that the
// client has said it of and that do not any more. A cluster's instances are gone through
// once, however often it stands in the report.
func (s *Server) votes(r *reporter, stats []*endpointv3.ClusterStats) []vote {
	var votes []vote
	for cluster, at := range byCluster(stats) {
		k, rules, endpoint, wanted := s.cache.judged(cluster)
		if !wanted {
			continue
		}
		service := s.cache.service(k)
		if service == nil {
			continue
		}
		for _, i := range service.Shown {
			n, called := at[addressIn(i, endpoint)]
			if !called || i.Imported != nil { // what is of another region is judged there
				continue
			}
			v := vote{key: i.Key()}
			if v.hold(n, rules, s.loads.slot) && (v.failing || r.accused[v.key]) {
				votes = append(votes, v)
			}
		}
	}
	slices.SortFunc(votes, func(a, b vote) int { return a.key.Compare(b.key) })
	return votes
}

// byCluster are the calls of a report by cluster and address.
func byCluster(stats []*endpointv3.ClusterStats) map[string]map[netip.AddrPort]calls {
	out := make(map[string]map[netip.AddrPort]calls)
	for _, of := range stats {
		for _, locality := range of.GetUpstreamLocalityStats() {
			if len(locality.GetUpstreamEndpointStats()) == 0 {
				continue
			}
			if out[of.GetClusterName()] == nil {
				out[of.GetClusterName()] = make(map[netip.AddrPort]calls)
			}
			gatherEndpoints(out[of.GetClusterName()], locality.GetUpstreamEndpointStats())
		}
	}
	return out
}

// gatherEndpoints sums calls by address, which can stand in several localities.
func gatherEndpoints(at map[netip.AddrPort]calls, of []*endpointv3.UpstreamEndpointStats) {
	for _, e := range of {
		socket := e.GetAddress().GetSocketAddress()
		ip, err := netip.ParseAddr(socket.GetAddress())
		if err != nil || socket.GetPortValue() > 65535 {
			continue // it is not of an instance
		}
		address := netip.AddrPortFrom(ip, uint16(socket.GetPortValue()))
		n := at[address]
		n.add(calls{e.GetTotalSuccessfulRequests(), e.GetTotalErrorRequests()})
		at[address] = n
	}
}

// addressIn is where an instance has an endpoint. Of two at one address, which nobody
// can tell apart, both are said what is said of it.
func addressIn(i *registry.Instance, endpoint string) netip.AddrPort {
	e, _ := i.Endpoint(endpoint)
	address, _ := e.Address()
	return address
}

// hold holds calls against the rules; false when they are too few to say anything.
func (v *vote) hold(n calls, rules registry.LoadRules, within time.Duration) bool {
	all := n.succeeded + n.failed
	if all < rules.Least || all == 0 {
		return false
	}
	v.failing = float64(n.failed)*100 >= float64(rules.Percent)*float64(all)
	if v.failing {
		v.reason = fmt.Sprintf("%d of %d calls within %v failed", n.failed, all, within)
	}
	return true
}

// cast tells one vote, and gives what came of it.
func (s *Server) cast(ctx context.Context, r *reporter, v vote) int {
	report := registry.Report{Reporter: reporterName(r.node), Outcome: registry.ReportSuccess, Reason: v.reason, From: r.from}
	if v.failing {
		report.Outcome = registry.ReportFailure
	}
	ref := registry.InstanceRef{Namespace: v.key.Namespace, Service: v.key.Service, ID: v.key.ID}
	_, err := s.accuse(ctx, ref, report)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		delete(r.accused, v.key)
		return voteGone
	case err != nil:
		return voteRefused
	case !v.failing:
		delete(r.accused, v.key)
		return voteSuccess
	}
	if len(r.accused) < loadVotesMax {
		r.accused[v.key] = true
	}
	return voteFailure
}

// reporterName is a node's name as a reporter.
func reporterName(n *node) string {
	end := min(len(n.id), reporterMax)
	for end > 0 && end < len(n.id) && !utf8.RuneStart(n.id[end]) {
		end--
	}
	return n.id[:end]
}
