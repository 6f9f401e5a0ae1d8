package consensus

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/storage"
)

// FeatureLevel is the newest that this version knows. A cluster works at the
// level that its log says.
const FeatureLevel = 1

// facts are what the log says about the cluster itself. They are not changed
// once published: whoever applies a change makes a new one.
type facts struct {
	conf         *pb.ConfState
	incarnation  string
	featureLevel uint32
	members      map[uint64]Member // the address book
	check        check             // the newest comparison of the members' states
	replacement  *Replacement      // that is under way; nil for none
	removals     removals
}

// Keys of the facts in the engine.
const (
	confKey      = storage.MetaPrefix + "configuration"
	clusterKey   = storage.MetaPrefix + "cluster"
	timeKey      = storage.MetaPrefix + "time"
	replaceKey   = storage.MetaPrefix + "replacement"
	removalsKey  = storage.MetaPrefix + "removals"
	memberPrefix = storage.MetaPrefix + "member/"
)

func memberKey(id uint64) []byte { return fmt.Appendf(nil, "%s%020d", memberPrefix, id) }

// loadFacts reads them back.
func loadFacts(e *storage.Engine) (*facts, error) {
	f := &facts{conf: &pb.ConfState{}, members: make(map[uint64]Member)}
	var cluster peerv1.Cluster
	var newest peerv1.Check
	var replacement peerv1.Replacement
	var gone peerv1.Removals
	for key, message := range map[string]proto.Message{
		confKey: f.conf, clusterKey: &cluster, checkKey: &newest, replaceKey: &replacement, removalsKey: &gone,
	} {
		if err := loadMessage(e, key, message); err != nil {
			return nil, err
		}
	}
	f.incarnation, f.featureLevel = cluster.GetIncarnation(), cluster.GetFeatureLevel()
	f.check = checkOf(&newest)
	f.replacement = replacementOf(&replacement)
	f.removals = removals{newest: gone.GetNewest(), settled: gone.GetSettled()}
	prefix := []byte(memberPrefix)
	err := e.Scan(prefix, storage.PrefixEnd(prefix), func(key, value []byte) error {
		var m peerv1.Member
		if err := proto.Unmarshal(value, &m); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		f.members[m.GetId()] = memberOf(&m)
		return nil
	})
	return f, err
}

func loadMessage(e *storage.Engine, key string, into proto.Message) error {
	value, ok, err := e.Get([]byte(key))
	if err != nil || !ok {
		return err
	}
	if err := proto.Unmarshal(value, into); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// loadTime reads the time of the newest entry.
func loadTime(e *storage.Engine) (int64, error) {
	ms, err := loadNumber(e, timeKey)
	return int64(ms), err
}

// loadNumber reads a number of 8 bytes; 0 when there is none.
func loadNumber(e *storage.Engine, key string) (uint64, error) {
	value, ok, err := e.Get([]byte(key))
	if err != nil || !ok {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("%s has %d bytes, want 8", key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

func (f *facts) clone() *facts {
	next := *f
	next.members = maps.Clone(f.members)
	return &next
}

// isMember tells whether the id votes or learns.
func (f *facts) isMember(id uint64) bool {
	return slices.Contains(f.conf.GetVoters(), id) || slices.Contains(f.conf.GetVotersOutgoing(), id) ||
		slices.Contains(f.conf.GetLearners(), id) || slices.Contains(f.conf.GetLearnersNext(), id)
}

// isVoter tells whether the id votes, be it in the configuration that is being left.
func (f *facts) isVoter(id uint64) bool {
	return slices.Contains(f.conf.GetVoters(), id) || slices.Contains(f.conf.GetVotersOutgoing(), id)
}

// isJoint: two configurations have to agree.
func (f *facts) isJoint() bool { return len(f.conf.GetVotersOutgoing()) > 0 }

// ids are those of the members.
func (f *facts) ids() []uint64 {
	all := slices.Concat(f.conf.GetVoters(), f.conf.GetVotersOutgoing(), f.conf.GetLearners(), f.conf.GetLearnersNext())
	slices.Sort(all)
	return slices.Compact(all)
}

func (f *facts) size() int { return len(f.ids()) }

// setConf, setCluster and setMember change the facts and add the change to the
// batch.

func (f *facts) setConf(b *storage.Batch, conf *pb.ConfState) {
	f.conf = conf
	b.Set([]byte(confKey), marshal(conf))
}

// setCluster: only the first counts.
func (f *facts) setCluster(b *storage.Batch, c *peerv1.Cluster) {
	if f.incarnation != "" {
		return
	}
	f.incarnation, f.featureLevel = c.GetIncarnation(), c.GetFeatureLevel()
	b.Set([]byte(clusterKey), marshal(c))
}

// setMember: an id keeps the UUID that it had first, whoever asks, and an
// empty address changes nothing.
func (f *facts) setMember(b *storage.Batch, p *peerv1.Member) {
	m, have := memberOf(p), f.members[p.GetId()]
	if have.UUID != "" && have.UUID != m.UUID || have.Removed {
		return
	}
	f.putMember(b, m.over(have))
}

func (f *facts) putMember(b *storage.Batch, m Member) {
	f.members[m.ID] = m
	b.Set(memberKey(m.ID), marshal(m.proto()))
}

// setReplacement begins a replacement, or ends the one that is under way.
func (f *facts) setReplacement(b *storage.Batch, r *Replacement) {
	f.replacement = r
	if r == nil {
		b.Delete([]byte(replaceKey))
		return
	}
	b.Set([]byte(replaceKey), marshal(r.proto()))
}

func setTime(b *storage.Batch, ms int64) {
	b.Set([]byte(timeKey), binary.BigEndian.AppendUint64(nil, uint64(ms)))
}

// book is the address book, by id, without those that were removed.
func (f *facts) book() []Member {
	all := slices.SortedFunc(maps.Values(f.members), byID)
	return slices.DeleteFunc(all, func(m Member) bool { return m.Removed })
}

func byID(a, b Member) int { return cmp.Compare(a.ID, b.ID) }

// removed are the ids of those that were, in order.
func (f *facts) removed() []uint64 {
	var ids []uint64
	for id, m := range f.members {
		if m.Removed {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func memberOf(p *peerv1.Member) Member {
	return Member{
		ID: p.GetId(), UUID: p.GetUuid(), HTTP: p.GetHttp(), XDS: p.GetXds(), GRPC: p.GetGrpc(), Admin: p.GetAdmin(),
		Since: p.GetSince(), Removed: p.GetRemoved(),
	}
}

func (m Member) proto() *peerv1.Member {
	return &peerv1.Member{
		Id: m.ID, Uuid: m.UUID, Http: m.HTTP, Xds: m.XDS, Grpc: m.GRPC, Admin: m.Admin, Since: m.Since, Removed: m.Removed,
	}
}

// marshal encodes a message of our own making, which cannot fail.
func marshal(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("consensus: marshal %T: %v", m, err))
	}
	return b
}
