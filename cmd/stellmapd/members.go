package main

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/registry/httpapi"
)

func memberOf(m MemberConfig) consensus.Member {
	return consensus.Member{ID: m.ID, HTTP: m.HTTP, XDS: m.XDS, GRPC: m.GRPC, Admin: m.Admin}
}

// members are the cluster's founders.
func (c *Config) members() []consensus.Member {
	out := make([]consensus.Member, len(c.Cluster.Members))
	for i, m := range c.Cluster.Members {
		out[i] = memberOf(m)
	}
	return out
}

// addressBook says where to reach a peer. The replicated address book rules;
// where the file says something else, every second attempt goes there: when
// all members have moved at once, the book can learn of it in no other way. A
// node that is being taken in goes by what it was told.
func (n *node) addressBook() func(id uint64) string {
	var mu sync.Mutex
	attempts := make(map[uint64]int)
	return func(id uint64) string {
		s := n.group.Status()
		if slices.Contains(s.Removed, id) {
			return ""
		}
		book := cmp.Or(addressIn(s.Members, id), addressIn(n.joining.Members, id))
		file := addressIn(n.config.members(), id)
		mu.Lock()
		defer mu.Unlock()
		attempts[id]++
		if book == "" || file != "" && attempts[id]%2 == 0 {
			return file
		}
		return book
	}
}

func addressIn(members []consensus.Member, id uint64) string {
	for _, m := range members {
		if m.ID == id {
			return m.GRPC
		}
	}
	return ""
}

// clusterStatus is how this member sees the cluster.
func (n *node) clusterStatus() httpapi.ClusterStatus {
	s := n.group.Status()
	return httpapi.ClusterStatus{
		ID: s.ID, ClusterID: s.ClusterID, LeaderID: s.LeaderID, Region: n.config.Node.Region,
		Term: s.Term, Commit: s.Commit, Applied: s.Applied, Role: string(s.Role),
		Confirmed: s.Confirmed, Incarnation: s.Incarnation, Members: n.knownMembers(&s), Voters: s.Voters,
		VotersOutgoing: s.VotersOutgoing, Learners: s.Learners, Removed: s.Removed, Replacement: replacementOf(s.Replacement),
		LowSpace: s.Low, StateCheck: httpapi.StateCheck(s.Check),
	}
}

func replacementOf(r *consensus.Replacement) *httpapi.Replacement {
	if r == nil {
		return nil
	}
	return &httpapi.Replacement{Old: r.Old, New: r.New}
}

// knownMembers are those of the configuration, with their addresses in the book.
// In it a member stands once it has introduced itself, or was taken in; until
// then the file has to do, or what a node that joins was told.
func (n *node) knownMembers(s *consensus.Status) []httpapi.Member {
	lines := make(map[uint64]httpapi.Member)
	for _, m := range slices.Concat(n.config.members(), n.joining.Members, s.Members) {
		old := lines[m.ID]
		lines[m.ID] = httpapi.Member{
			ID: m.ID, HTTP: cmp.Or(m.HTTP, old.HTTP), XDS: cmp.Or(m.XDS, old.XDS), GRPC: cmp.Or(m.GRPC, old.GRPC), Admin: cmp.Or(m.Admin, old.Admin),
		}
	}
	var known []httpapi.Member
	for _, id := range s.IDs() {
		m := lines[id]
		m.ID = id
		known = append(known, m)
	}
	return known
}

// withheld is what proxies are not told of a service, in words for whoever asks.
func (n *node) withheld(ctx context.Context, k registry.ServiceKey) []httpapi.Withheld {
	var out []httpapi.Withheld
	for _, w := range n.xds.WithheldOf(ctx, k) {
		out = append(out, httpapi.Withheld{Instance: w.Instance, Endpoint: w.Endpoint, Reason: w.Reason})
	}
	return out
}
