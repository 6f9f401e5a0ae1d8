package consensus

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
)

// proposeRecords is the leader's housekeeping: the cluster gets its incarnation
// from its first leader, and the address book what the members said of
// themselves when they introduced themselves.
func (g *Group) proposeRecords() {
	if g.leads == 0 || g.appliedTerm != g.leads {
		return // what is missing may be in an entry of an earlier term; of its own it knows what it has proposed
	}
	f := g.facts.Load()
	if f.incarnation == "" {
		g.proposeRecord("cluster", kindCluster, func() []byte {
			return marshal(&peerv1.Cluster{Incarnation: g.randomIncarnation(), FeatureLevel: FeatureLevel})
		})
	}
	for _, m := range append(g.acquaintances.all(), g.config.Self) {
		if have := f.members[m.ID]; f.isMember(m.ID) && (have.UUID == "" || have.UUID == m.UUID) && have != m.over(have) {
			g.proposeRecord("member "+strconv.FormatUint(m.ID, 10), kindMember, func() []byte { return marshal(m.proto()) })
		}
	}
}

// proposeRecord proposes unless it did a short while ago.
func (g *Group) proposeRecord(name string, kind entryKind, payload func() []byte) {
	if last, ok := g.records[name]; ok && g.ticks-last < recordRetryTicks {
		return
	}
	g.records[name] = g.ticks
	g.enqueue(&call{kind: callPropose, entryKind: kind, data: payload()})
}

func (g *Group) randomIncarnation() string {
	b := binary.BigEndian.AppendUint64(nil, g.config.Random())
	return hex.EncodeToString(binary.BigEndian.AppendUint64(b, g.config.Random()))
}

// over is the member with the old addresses where it has none: an empty one
// never replaces one that is known. What it was made by stays.
func (m Member) over(old Member) Member {
	for _, pair := range []struct {
		field *string
		old   string
	}{{&m.HTTP, old.HTTP}, {&m.XDS, old.XDS}, {&m.GRPC, old.GRPC}, {&m.Admin, old.Admin}} {
		if *pair.field == "" {
			*pair.field = pair.old
		}
	}
	m.Since, m.Removed = old.Since, old.Removed
	return m
}
