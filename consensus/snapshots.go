package consensus

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/stellmap/stellmap/storage"
)

// A member that lacks entries which the leader has cut is sent the leader's
// newest snapshot. Raft decides that one is sent and accepted; the file goes
// beside its messages, since it may be large:
//
//	leader     raftLog.Snapshot → MsgSnap → Transport.SendSnapshot
//	receiver   OfferSnapshot, Write, Finish: the file is kept, durably → MsgSnap to Raft
//	           Raft accepts it → appender: the log begins anew after it → answer
//	                           → applier: it becomes the state, in one step
//
// So at no moment is a promise on disk that the disk cannot keep. After a crash
// between the two steps the next start does the second (storage.OpenStore).
//
// From the moment on at which Raft has accepted it, entries up to it are not
// applied any more, though they may wait to be: Raft has the configuration of the
// snapshot already, on which an older change must not be made.

// snapshotBytesMax is the largest snapshot file that is taken in; a larger one is
// refused.
const snapshotBytesMax = 64 << 30

// errSuperseded ends a batch that a snapshot makes void.
var errSuperseded = errors.New("consensus: a snapshot supersedes the entry")

func positionOf(s *pb.Snapshot) storage.Position {
	return storage.Position{Index: s.GetMetadata().GetIndex(), Term: s.GetMetadata().GetTerm()}
}

// configurationIn is what the meta of a snapshot says about Raft's configuration
// at its index.
func configurationIn(state *storage.EngineSnapshot) (string, error) {
	value, ok, err := state.Get([]byte(confKey))
	if err == nil && !ok {
		err = errors.New("there is none")
	}
	if err != nil {
		return "", fmt.Errorf("read the configuration in the state at index %d: %w", state.Applied().Index, err)
	}
	return base64.StdEncoding.EncodeToString(value), nil
}

// configurationOf reads it back; an older snapshot has none.
func configurationOf(m storage.SnapshotMeta) (*pb.ConfState, bool) {
	value, err := base64.StdEncoding.DecodeString(m.Configuration)
	conf := new(pb.ConfState)
	if err != nil || len(value) == 0 || proto.Unmarshal(value, conf) != nil {
		return nil, false
	}
	return conf, true
}

// offerSnapshot is what Raft sends to a member that needs entries that were cut:
// the newest snapshot that the log follows and in which all of today's members
// are. When there is none one is taken soon. It is the owner's.
func (g *Group) offerSnapshot() (*pb.Snapshot, error) {
	for _, m := range g.config.Snapshots.List() {
		conf, ok := configurationOf(m)
		if term, err := g.config.Log.Term(m.Index); !ok || m.Index > g.applied || err != nil || term != m.Term || !g.hasAll(conf) {
			continue
		}
		return &pb.Snapshot{Metadata: &pb.SnapshotMetadata{ConfState: conf, Index: &m.Index, Term: &m.Term}}, nil
	}
	g.snapshotWanted.Store(true)
	return nil, raft.ErrSnapshotTemporarilyUnavailable
}

// hasAll tells whether all of today's members are in a configuration: Raft takes
// no snapshot in which it is not itself.
func (g *Group) hasAll(conf *pb.ConfState) bool {
	have := (&facts{conf: conf}).ids()
	return !slices.ContainsFunc(g.facts.Load().ids(), func(id uint64) bool { return !slices.Contains(have, id) })
}

// sendSnapshot hands the file over. Until that is reported Raft sends the member
// nothing else.
func (g *Group) sendSnapshot(m *pb.Message) {
	to, at := m.GetTo(), positionOf(m.GetSnapshot())
	meta, kept := g.config.Snapshots.Find(at)
	if !kept { // it was found to be damaged, or a newer one took its place
		g.ReportSnapshot(to, false)
		return
	}
	g.sending[to] = at.Index
	g.noticeSending()
	line, err := meta.Line()
	if err != nil {
		panic(fmt.Sprintf("consensus: the meta of a kept snapshot, %+v: %v", meta, err)) // it was read from one
	}
	g.log.Info("sending a snapshot", "to", to, "index", at.Index, "file_bytes", meta.FileBytes)
	g.config.Transport.SendSnapshot(OutgoingSnapshot{
		To: to, Index: meta.Index, Bytes: meta.FileBytes, Meta: line, Message: marshal(m),
		Open: func() (storage.SnapshotFile, error) { return g.config.Snapshots.OpenFile(meta) },
	})
}

// noticeSending keeps the log back to where the members that are sent a snapshot
// go on from.
func (g *Group) noticeSending() {
	oldest := uint64(0)
	for _, index := range g.sending {
		if oldest == 0 || index < oldest {
			oldest = index
		}
	}
	g.sendingFrom.Store(oldest)
}

// sentSnapshot is how the sending ended.
type sentSnapshot struct {
	to uint64
	ok bool
}

// ReportSnapshot says whether a member has the snapshot that it was sent.
func (g *Group) ReportSnapshot(to uint64, ok bool) {
	g.done.put(doneWork{sent: &sentSnapshot{to, ok}}, 0)
}

func (g *Group) takeSent(s *sentSnapshot) {
	delete(g.sending, s.to)
	g.noticeSending()
	outcome, label := raft.SnapshotFinish, "done"
	if !s.ok {
		outcome, label = raft.SnapshotFailure, "failed"
	}
	g.metrics.sentSnapshots.WithLabelValues(label).Inc()
	g.node.ReportSnapshot(s.to, outcome)
}

// incoming is the snapshot that comes from another member, one at a time.
type incoming struct {
	mu      sync.Mutex // guards what follows
	stream  *IncomingSnapshot
	partial *storage.Receiving // what has come; it stays when the stream breaks, and is the stream's while there is one
	passing bool               // Raft has it, and has not passed it over, nor is it installed
	closed  bool
}

// IncomingSnapshot is one try to bring this member a snapshot. It is one
// goroutine's, and ends with Leave.
type IncomingSnapshot struct {
	group   *Group
	meta    storage.SnapshotMeta
	message *pb.Message
	whole   bool // nothing of the file is needed
}

// OfferSnapshot takes in what a member, whose Introduction was accepted, says of
// a snapshot that it has for this one. ErrBusy means that another one is on its
// way; any other error, that this one cannot be taken.
func (g *Group) OfferSnapshot(from uint64, meta, message []byte) (*IncomingSnapshot, error) {
	s := &IncomingSnapshot{group: g, message: new(pb.Message)}
	var err error
	if s.meta, err = storage.ParseSnapshotMeta(meta); err == nil {
		err = proto.Unmarshal(message, s.message)
	}
	if err != nil {
		g.metrics.invalid.Inc()
		return nil, fmt.Errorf("decode the offer of a snapshot by node %d: %w", from, err)
	}
	if err := s.check(from); err != nil {
		g.metrics.invalid.Inc()
		return nil, err
	}
	// What is committed here Raft passes over, and so the leader learns of it.
	s.whole = s.meta.Index <= g.status.Load().Commit
	if err := g.incoming.begin(s); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		s.Leave()
		return nil, g.judgeReceiving(err)
	}
	return s, nil
}

// Bytes is how many the file has.
func (s *IncomingSnapshot) Bytes() int64 { return s.meta.FileBytes }

// check: the message is what Raft can work on, and goes with the file.
func (s *IncomingSnapshot) check(from uint64) error {
	g, m := s.group, s.message
	own, conf := g.facts.Load().incarnation, m.GetSnapshot().GetMetadata().GetConfState()
	told, ok := configurationOf(s.meta)
	switch {
	case g.config.Snapshots == nil:
		return errors.New("this member keeps no snapshots")
	case m.GetType() != pb.MsgSnap || m.GetFrom() != from || m.GetTo() != g.config.ID:
		return fmt.Errorf("node %d sent a %s from node %d to node %d with a snapshot", from, m.GetType(), m.GetFrom(), m.GetTo())
	case positionOf(m.GetSnapshot()) != s.meta.Position() || !ok || !proto.Equal(conf, told):
		return fmt.Errorf("node %d sent a message about index %d with a snapshot at %d", from, m.GetSnapshot().GetMetadata().GetIndex(), s.meta.Index)
	case s.meta.Term > m.GetTerm():
		return fmt.Errorf("node %d sent a snapshot of term %d in term %d", from, s.meta.Term, m.GetTerm())
	case s.meta.ClusterID != g.config.ClusterID || own != "" && s.meta.Incarnation != own:
		return fmt.Errorf("the snapshot at index %d is of incarnation %q of cluster %d, and this is %q of %d", s.meta.Index, s.meta.Incarnation, s.meta.ClusterID, own, g.config.ClusterID)
	case s.meta.FileBytes > snapshotBytesMax || s.meta.FileBytes <= 0:
		return fmt.Errorf("the snapshot at index %d has %d bytes, and the most is %d: %w", s.meta.Index, s.meta.FileBytes, int64(snapshotBytesMax), ErrTooLarge)
	}
	return nil
}

// begin takes the only place, and what is there of the same file.
func (in *incoming) begin(s *IncomingSnapshot) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.closed:
		return ErrStopped
	case in.stream != nil || in.passing:
		return fmt.Errorf("%w: another snapshot is on its way to this member", ErrBusy)
	}
	in.stream = s
	return nil
}

// owns tells whether the place is still this stream's.
func (in *incoming) owns(s *IncomingSnapshot) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stream == s && !in.closed
}

// release makes room for the next: Raft has passed it over, or it is installed.
func (in *incoming) release() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.passing = false
}

// close ends all of it. What a stream still works on that drops when it leaves.
func (in *incoming) close() error {
	in.mu.Lock()
	in.closed = true
	partial := in.partial
	if in.stream != nil {
		partial = nil
	}
	in.mu.Unlock()
	if partial == nil {
		return nil
	}
	return partial.Drop()
}

// prepare finds out what is lacking.
func (s *IncomingSnapshot) prepare() error {
	in, snapshots := &s.group.incoming, s.group.config.Snapshots
	if _, kept := snapshots.Find(s.meta.Position()); kept {
		s.whole = true
	}
	if in.partial != nil && (s.whole || in.partial.Meta() != s.meta) {
		err := in.partial.Drop()
		in.partial = nil
		if err != nil {
			return err
		}
	}
	if in.partial == nil && !s.whole {
		r, err := snapshots.Receive(s.meta)
		if err != nil {
			return err
		}
		in.partial = r
	}
	return nil
}

// judgeReceiving ends the member for an error of the disk. What the sender did
// wrong, a full disk and a stream that ended are none.
func (g *Group) judgeReceiving(err error) error {
	var wrong *storage.SnapshotError
	switch {
	case err == nil, errors.As(err, &wrong), errors.Is(err, storage.ErrNoRoom), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	default:
		g.fail(fmt.Errorf("receive a snapshot: %w", err))
	}
	return err
}

// Offset is the first byte of the file that is not there.
func (s *IncomingSnapshot) Offset() int64 {
	if partial := s.group.incoming.partial; !s.whole && partial != nil {
		return partial.Bytes()
	}
	return s.meta.FileBytes
}

// Write takes the next bytes.
func (s *IncomingSnapshot) Write(p []byte) (int, error) {
	in := &s.group.incoming
	if !in.owns(s) || in.partial == nil {
		return 0, fmt.Errorf("%w: no bytes of the snapshot are wanted any more", ErrStopped)
	}
	n, err := in.partial.Write(p)
	if err != nil {
		in.partial = nil
	}
	return n, s.group.judgeReceiving(err)
}

// Finish keeps the file, and has Raft see the message. It checks a large file for
// long, and goes on with that when the stream ends meanwhile: nothing more has to
// come, and otherwise all of it would have to come again.
func (s *IncomingSnapshot) Finish() error {
	in := &s.group.incoming
	if !in.owns(s) {
		return ErrStopped
	}
	if !s.whole {
		_, err := in.partial.Finish(s.group.ctx)
		if errors.Is(err, storage.ErrSaving) {
			return fmt.Errorf("%w: %w", ErrBusy, err)
		}
		in.partial = nil
		if err != nil {
			return s.group.judgeReceiving(err)
		}
		s.whole = true
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.passing = true
	if !s.group.received.put(s.message, messageSize(s.message)) {
		in.passing = false
		return fmt.Errorf("%w: too many messages wait", ErrBusy)
	}
	return nil
}

// Leave ends the try. What has come stays for the next, if this member goes on.
func (s *IncomingSnapshot) Leave() {
	in := &s.group.incoming
	in.mu.Lock()
	var partial *storage.Receiving
	if in.stream == s {
		in.stream = nil
		if in.closed {
			partial = in.partial
		}
	}
	in.mu.Unlock()
	if partial == nil {
		return
	}
	if err := partial.Drop(); err != nil {
		s.group.log.Warn("what came of a snapshot is removed at the next start", "error", err)
	}
}

// noticeTaken is about what goes to the appender: if a snapshot is among it, Raft
// has accepted it.
func (g *Group) noticeTaken(s *pb.Snapshot) {
	if s == nil {
		return
	}
	at := positionOf(s)
	g.taken, g.commit, g.committedTerm = at.Index, at.Index, at.Term
	g.applier.superseded.Store(at.Index)
}

// passedOver makes room when Raft has accepted nothing of what it was offered.
func (g *Group) passedOver() {
	if g.offered && g.taken == 0 {
		g.incoming.release()
	}
	g.offered = false
}

// install is the second step, for the applier.
func (g *Group) install(at storage.Position) {
	g.applier.queue.put(applyTask{install: at}, 0)
}

func (x *applier) isSuperseded(entries []*pb.Entry) bool {
	return entries[len(entries)-1].GetIndex() <= x.superseded.Load()
}

// install makes a kept snapshot the state.
func (x *applier) install(at storage.Position) error {
	m, kept := x.snapshots.Find(at)
	if !kept {
		return errors.New("it is not kept any more, or is damaged")
	}
	in, err := x.snapshots.Open(m)
	if err != nil {
		return err
	}
	if err := errors.Join(x.engine.Restore(in), in.Close()); err != nil {
		return err
	}
	if err := x.reload(); err != nil {
		return err
	}
	if err := x.machine.Install(at.Index); err != nil {
		return err
	}
	x.applied(appliedBatch{installed: at})
	return nil
}

// reload reads what this package keeps in the state.
func (x *applier) reload() (err error) {
	if x.requests, err = loadRequests(x.engine); err != nil {
		return fmt.Errorf("read the remembered requests: %w", err)
	}
	if mutant("requests_missing_from_snapshot") {
		x.requests = newRequests(x.engine)
	}
	if x.time, err = loadTime(x.engine); err != nil {
		return fmt.Errorf("read the time of the newest entry: %w", err)
	}
	f, err := loadFacts(x.engine)
	if err != nil {
		return fmt.Errorf("read the facts about the cluster: %w", err)
	}
	if f.featureLevel > FeatureLevel {
		return fmt.Errorf("the cluster works at feature level %d, this version knows up to %d: %w", f.featureLevel, FeatureLevel, errNotUnderstood)
	}
	if bound := f.members[x.id].UUID; isAnother(bound, x.uuid) {
		return fmt.Errorf("%w: %w", ErrRefused, uuidRefusal(Member{ID: x.id, UUID: x.uuid}, bound))
	}
	x.facts, x.changed = f, false
	x.published.Store(f)
	return nil
}

// takeInstalled goes on from a snapshot. What became of proposals up to it is not
// known here.
func (g *Group) takeInstalled(at storage.Position) {
	g.applied, g.appliedTerm = at.Index, at.Term
	g.metrics.installed.Inc()
	g.log.Info("snapshot installed", "index", at.Index, "term", at.Term)
	if g.taken == at.Index {
		g.taken = 0
	}
	g.incoming.release()
	g.publishStatus()
	for index, c := range g.proposed {
		if index <= at.Index {
			delete(g.proposed, index)
			c.finish(outcome{err: fmt.Errorf("%w: entry %d of term %d is behind the snapshot at %d that this member took over", ErrUnknownOutcome, c.index, c.term, at.Index)})
		}
	}
	g.answerWaiting()
}
