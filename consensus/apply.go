package consensus

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/storage"
)

// applier is the executor that turns committed entries into state: one batch
// for each message of Raft, with the state, the facts, the remembered requests,
// the applied index and its term, so that a crash leaves all or nothing of it.
type applier struct {
	id      uint64
	uuid    string
	engine  *storage.Engine
	machine Machine
	queue   *mailbox[applyTask]
	// snapshots are where what is installed comes from.
	snapshots *storage.Snapshots
	// superseded is the entry up to which a snapshot that Raft has accepted makes
	// everything void: what comes before the install of it is not applied.
	superseded atomic.Uint64
	// configure has the owner change Raft's configuration by the entry of an index;
	// nil when that is superseded.
	configure func(index uint64, change pb.ConfChangeI) (*pb.ConfState, error)
	// check is given the state after an entry that asks for its hash; nil = nobody hashes.
	check     func(*storage.EngineSnapshot) error
	applied   func(appliedBatch)     // tells the owner
	published *atomic.Pointer[facts] // what others see of facts

	spare    []applyTask
	facts    *facts // working copy; shared once published
	changed  bool   // it is a clone of the published ones
	requests *requests
	time     int64  // of the newest entry
	hoped    uint64 // the term that this member was elected for; 0 when it does not lead
	led      uint64 // the term that the machine was told of; 0 for none
}

// applyTask is committed entries, or news about leadership between them.
type applyTask struct {
	entries *pb.Message      // MsgStorageApply
	leads   uint64           // this member was elected for the term
	follows bool             // it does not lead any more
	install storage.Position // the snapshot of it is the state from now on
	// snapshot is answered with the state as it is then.
	snapshot *snapshotCall
}

// appliedBatch is what the owner hears when entries, or a snapshot, are in the state.
type appliedBatch struct {
	results   []result // none when the entries are superseded
	response  *pb.Message
	installed storage.Position
}

// result is what became of one entry.
type result struct {
	index, term uint64
	reply       Reply
	err         error
}

func (x *applier) step() error {
	tasks := x.queue.take(x.spare)
	x.spare = tasks
	for _, t := range tasks {
		switch {
		case t.follows:
			x.follow()
		case t.leads != 0:
			x.hoped = t.leads
		case t.install.Index != 0:
			if err := x.install(t.install); err != nil {
				return fmt.Errorf("install the snapshot at index %d: %w", t.install.Index, err)
			}
		case t.snapshot != nil:
			if err := t.snapshot.answer(x.engine.Snapshot()); err != nil {
				return fmt.Errorf("close a snapshot: %w", err)
			}
		default:
			if err := x.apply(t.entries); err != nil {
				return err
			}
		}
	}
	return nil
}

// apply makes one batch of the entries, or several, where the state between two
// entries is asked for.
func (x *applier) apply(m *pb.Message) error {
	entries := m.GetEntries()
	batch := appliedBatch{results: make([]result, len(entries)), response: m.GetResponses()[0]}
	for done := 0; done < len(entries); {
		if x.isSuperseded(entries) {
			batch.results = nil
			break
		}
		n := 1 + slices.IndexFunc(entries[done:], asksForCheck)
		if n == 0 {
			n = len(entries) - done
		}
		err := x.applyBatch(entries[done:done+n], batch.results[done:])
		if errors.Is(err, errSuperseded) {
			continue
		}
		if err != nil {
			return err
		}
		done += n
	}
	x.applied(batch)
	return nil
}

// applyBatch makes one batch of the entries.
func (x *applier) applyBatch(entries []*pb.Entry, results []result) error {
	b := x.engine.NewBatch()
	before := x.time
	for i, e := range entries {
		r, err := x.entry(b, e)
		if err != nil {
			return errors.Join(fmt.Errorf("apply entry %d of term %d: %w", e.GetIndex(), e.GetTerm(), err), b.Close())
		}
		results[i] = r
	}
	if x.time != before {
		setTime(b, x.time)
	}
	last := entries[len(entries)-1]
	if err := x.engine.Apply(b, storage.Position{Index: last.GetIndex(), Term: last.GetTerm()}); err != nil {
		return fmt.Errorf("apply up to entry %d: %w", last.GetIndex(), err)
	}
	x.publish(last)
	if x.check != nil && asksForCheck(last) {
		return x.takeCheck(last.GetIndex())
	}
	return nil
}

func (x *applier) takeCheck(index uint64) error {
	state, err := x.engine.Snapshot()
	if err == nil {
		err = x.check(state)
	}
	if err != nil {
		return fmt.Errorf("take the state after entry %d, to hash it: %w", index, err)
	}
	return nil
}

// publish shows the batch, which the engine has now.
func (x *applier) publish(last *pb.Entry) {
	x.requests.flushed()
	if x.changed {
		x.published.Store(x.facts)
		x.changed = false
	}
	x.machine.Publish(last.GetIndex())
	if x.hoped != 0 && x.led == 0 && last.GetTerm() == x.hoped {
		x.led = x.hoped
		x.machine.Lead(x.led)
	}
}

// follow ends what Lead began, if it did.
func (x *applier) follow() {
	if x.led != 0 {
		x.machine.Follow()
	}
	x.hoped, x.led = 0, 0
}

// entry adds one entry to the batch.
func (x *applier) entry(b *storage.Batch, e *pb.Entry) (result, error) {
	r := result{index: e.GetIndex(), term: e.GetTerm(), reply: Reply{Index: e.GetIndex()}}
	switch e.GetType() {
	case pb.EntryConfChange:
		return x.confChange(b, r, e, &pb.ConfChange{})
	case pb.EntryConfChangeV2:
		return x.confChange(b, r, e, &pb.ConfChangeV2{})
	}
	if len(e.GetData()) == 0 {
		return r, nil // Raft's own, which begins a term
	}
	env, err := decodeEnvelope(e.GetData())
	if err != nil {
		return r, err
	}
	x.time = max(x.time, env.time)
	if mutant("time_falls") {
		x.time = env.time
	}
	switch env.kind {
	case kindCommand:
		return x.command(b, r, env)
	case kindCluster:
		return r, x.cluster(b, env.payload)
	case kindMember:
		return r, x.member(b, env.payload)
	case kindCheck:
		x.beginCheck(b, r.index)
		return r, nil
	case kindChecked:
		return r, x.checked(b, env.payload)
	case kindSettled:
		return r, x.settled(b, env.payload)
	case kindReplacement:
		return x.replacement(b, r, env.payload)
	case kindChange:
		return r, fmt.Errorf("a change of the members without one of the configuration: %w", errNotUnderstood)
	}
	panic(fmt.Sprintf("consensus: kind %d was decoded and has no meaning", env.kind))
}

// command gives the entry to the machine, unless its request was applied before.
func (x *applier) command(b *storage.Batch, r result, env envelope) (result, error) {
	x.requests.trim(b, x.time)
	if env.requestID == "" {
		r.reply.Data = x.machine.Apply(b, Entry{Index: r.index, Term: r.term, Time: x.time, Data: env.payload})
		return r, nil
	}
	first, reply, known, err := x.requests.find(env.requestID)
	if err != nil {
		return r, err
	}
	if known {
		r.reply = Reply{Index: first, Data: reply.data}
		if !reply.kept {
			r.err = fmt.Errorf("%w: the request was applied at %d, and its reply was too long to be kept", ErrUnknownOutcome, first)
		}
		return r, nil
	}
	r.reply.Data = x.machine.Apply(b, Entry{Index: r.index, Term: r.term, Time: x.time, Data: env.payload})
	x.requests.add(b, request{index: r.index, time: x.time, id: env.requestID}, r.reply.Data)
	return r, nil
}

func (x *applier) cluster(b *storage.Batch, payload []byte) error {
	var c peerv1.Cluster
	if err := proto.Unmarshal(payload, &c); err != nil {
		return fmt.Errorf("decode the cluster's entry: %w", err)
	}
	if c.GetFeatureLevel() > FeatureLevel {
		return fmt.Errorf("the cluster works at feature level %d, this version knows up to %d: %w", c.GetFeatureLevel(), FeatureLevel, errNotUnderstood)
	}
	x.ownFacts().setCluster(b, &c)
	return nil
}

func (x *applier) member(b *storage.Batch, payload []byte) error {
	var m peerv1.Member
	if err := proto.Unmarshal(payload, &m); err != nil {
		return fmt.Errorf("decode a member's entry: %w", err)
	}
	if m.GetId() == x.id && isAnother(m.GetUuid(), x.uuid) {
		return fmt.Errorf("%w: %w", ErrRefused, uuidRefusal(Member{ID: x.id, UUID: x.uuid}, m.GetUuid()))
	}
	x.ownFacts().setMember(b, &m)
	return nil
}

// ownFacts are facts that may be changed.
func (x *applier) ownFacts() *facts {
	if !x.changed {
		x.facts, x.changed = x.facts.clone(), true
	}
	return x.facts
}
