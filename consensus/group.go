package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/stellmap/stellmap/internal/threads"
	"github.com/stellmap/stellmap/storage"
)

// Group is this member of one Raft group.
//
// Its work is done in steps that do not wait: turn, by the owner, and one step
// for each executor. Run gives each a goroutine that sleeps until something is
// put into its mailbox; whoever wants to see a cluster in one thread calls the
// steps himself.
type Group struct {
	config        Config
	log           *slog.Logger
	metrics       *metrics
	recovery      Recovery
	acquaintances *acquaintances
	facts         atomic.Pointer[facts]
	status        atomic.Pointer[Status]
	progress      atomic.Pointer[[]MemberProgress] // as of the last tick; empty on a member that does not lead
	crowded       crowded
	snapshotBytes atomic.Uint64 // what the log had got since the start when the newest snapshot was taken
	snapshotAfter time.Time     // none is taken before; compact's alone
	// A follower needs a snapshot, and none that is kept will do.
	snapshotWanted atomic.Bool
	sendingFrom    atomic.Uint64 // the oldest snapshot that a member is being sent; 0 for none
	incoming       incoming

	// Ends everything; the cause is what Run returns.
	ctx  context.Context
	stop context.CancelCauseFunc
	gone chan struct{} // closed once this member was removed

	// The executors and how to wake them and the owner.
	appender                                   *appender
	applier                                    *applier
	checker                                    *checker
	sender                                     *sender
	wakeOwner, wakeAppend, wakeApply, wakeSend chan struct{}

	// What others put for the owner.
	calls    *mailbox[*call]
	received *mailbox[*pb.Message]
	done     *mailbox[doneWork] // by the executors, who are never refused

	owned
}

// owned is the owner's alone.
type owned struct {
	node  *raft.RawNode
	ticks uint64 // since Open

	leader        uint64 // as last seen
	leads         uint64 // the term that this member leads; 0 for none
	term          uint64
	commit        uint64
	committedTerm uint64 // of the entry at commit
	applied       uint64
	appliedTerm   uint64 // of the entry at applied
	changing      *call  // the last change of the members that was proposed

	backlog   []*call          // proposals for this and the next turns
	proposed  map[uint64]*call // by index, until it is applied
	waiting   []*call          // for a leader
	results   appliedHeap      // calls that wait until an index is applied
	records   map[string]uint64
	heard     map[uint64]uint64 // member → tick of its last message
	leaving   bool              // gone is closed
	full      bool              // the log was told that growth is refused
	sending   map[uint64]uint64 // member → index of the snapshot that it is sent
	offered   bool              // a snapshot that was received was given to Raft in this turn
	taken     uint64            // index of the snapshot that Raft took and that is not installed yet; 0 for none
	asksCheck uint64            // the tick at which this leader last looked whether a check is due
	barrierState

	spareCalls    []*call
	spareReceived []*pb.Message
	spareDone     []doneWork
}

// doneWork is news for the owner from an executor or the transport.
type doneWork struct {
	message     *pb.Message // an answer for this member
	applied     *appliedBatch
	unreachable uint64
	configure   *configureWork
	sent        *sentSnapshot
}

// configureWork has the owner change Raft's configuration.
type configureWork struct {
	index  uint64
	change pb.ConfChangeI
	reply  chan *pb.ConfState // nil: a snapshot supersedes it
}

// Recovery is what Open found and did.
type Recovery struct {
	Engine            storage.Position // where the state was
	LogFirst, LogLast uint64
	Commit            uint64 // known to be committed
	Replayed          uint64 // entries applied again
	TornBytes         int64  // cut from the log's end: a write that the last stop interrupted
	Duration          time.Duration
	Founded           bool // this was the first start
}

// Open reads everything back, applies again what the log has and the state
// lacks, and returns a member that does nothing until Run.
func Open(c Config) (*Group, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	began := c.Clock.Now()
	r, err := c.found()
	if err != nil {
		return nil, err
	}
	g, err := newGroup(c)
	if err != nil {
		return nil, err
	}
	if err := g.replay(&r); err != nil {
		return nil, fmt.Errorf("replay the log: %w", err)
	}
	if g.removedForGood() {
		return nil, removedError(c.ID, c.ClusterID)
	}
	g.noticeRemoval()
	r.Duration = c.Clock.Now().Sub(began)
	g.recovery = r
	g.log.Info("log replayed", "engine_index", r.Engine.Index, "log_first", r.LogFirst, "log_last", r.LogLast,
		"commit", r.Commit, "replayed", r.Replayed, "torn_bytes", r.TornBytes, "took", r.Duration)
	return g, nil
}

// found gives a founding directory its first content. A crash before the end
// leaves it founding, and the next start does the same again.
func (c *Config) found() (Recovery, error) {
	l := c.Log.Load()
	at := c.Engine.AppliedIndex()
	r := Recovery{Engine: at, LogFirst: l.First, LogLast: l.Last, TornBytes: l.TornBytes}
	if c.Identity.Stage == storage.StageJoining {
		return c.foundJoining(r)
	}
	if c.Identity.Stage != storage.StageFounding {
		if at.Index < Base().Index {
			return r, fmt.Errorf("the state is empty though the member was in use: never start a voter with an empty directory; %s", replaceHint(c.ID))
		}
		return r, nil
	}
	if l.Last != Base().Index || at.Index > Base().Index {
		return r, fmt.Errorf("the member is still being founded, but its log ends at %d and its state at %d: the identity file is an old copy", l.Last, at.Index)
	}
	b := c.Engine.NewBatch()
	(&facts{}).setConf(b, &pb.ConfState{Voters: memberIDs(c.Members)})
	if err := c.Engine.Apply(b, Base()); err != nil {
		return r, fmt.Errorf("write the first configuration: %w", err)
	}
	if err := c.Engine.Flush(); err != nil {
		return r, fmt.Errorf("write the first configuration: %w", err)
	}
	c.Identity.Stage = storage.StageReady
	if err := c.IdentityFile.Save(c.Identity); err != nil {
		return r, fmt.Errorf("save the identity: %w", err)
	}
	r.Founded, r.Engine = true, Base()
	return r, nil
}

func newGroup(c Config) (*Group, error) {
	f, err := loadFacts(c.Engine)
	if err != nil {
		return nil, fmt.Errorf("read the facts about the cluster: %w", err)
	}
	if f.featureLevel > FeatureLevel {
		return nil, fmt.Errorf("the cluster works at feature level %d, this version knows up to %d: %w", f.featureLevel, FeatureLevel, errNotUnderstood)
	}
	if bound := f.members[c.ID].UUID; isAnother(bound, c.Self.UUID) {
		return nil, fmt.Errorf("%w: %w", ErrRefused, uuidRefusal(c.Self, bound))
	}
	g := &Group{config: c, log: c.Logger, acquaintances: newAcquaintances(c.IdentityFile, c.Identity), gone: make(chan struct{})}
	g.ctx, g.stop = context.WithCancelCause(context.Background())
	g.facts.Store(f)
	g.progress.Store(new([]MemberProgress))
	g.makeMailboxes()
	if err := g.makeExecutors(f); err != nil {
		return nil, err
	}
	return g, g.makeNode(f)
}

func (g *Group) makeMailboxes() {
	g.wakeOwner, g.wakeAppend = make(chan struct{}, 1), make(chan struct{}, 1)
	g.wakeApply, g.wakeSend = make(chan struct{}, 1), make(chan struct{}, 1)
	g.calls = newMailbox[*call](g.wakeOwner, callsMax, math.MaxInt)
	g.received = newMailbox[*pb.Message](g.wakeOwner, receivedMax, receivedBytesMax)
	g.done = newMailbox[doneWork](g.wakeOwner, 0, 0)
}

func (g *Group) makeExecutors(f *facts) error {
	c := g.config
	requests, err := loadRequests(c.Engine)
	if err != nil {
		return fmt.Errorf("read the remembered requests: %w", err)
	}
	time, err := loadTime(c.Engine)
	if err != nil {
		return fmt.Errorf("read the time of the newest entry: %w", err)
	}
	g.metrics = newMetrics(g)
	g.sender = &sender{transport: c.Transport, metrics: g.metrics, queue: newMailbox[*pb.Message](g.wakeSend, sendQueueMax, sendQueueBytesMax)}
	g.appender = &appender{
		id: c.ID, log: c.Log, clock: c.Clock, metrics: g.metrics, respond: g.respond, written: c.Log.Load().HardState,
		snapshots: c.Snapshots, install: g.install, joined: g.acquaintances.joined,
		queue: newMailbox[*pb.Message](g.wakeAppend, 0, 0), // the owner looks at its load
	}
	g.checker = &checker{wake: make(chan struct{}, 1)}
	g.applier = &applier{
		id: c.ID, uuid: c.Self.UUID, engine: c.Engine, machine: c.Machine, published: &g.facts, facts: f, requests: requests, time: time,
		queue:   newMailbox[applyTask](g.wakeApply, 0, 0), // Raft holds back above applyBytesMax
		applied: func(b appliedBatch) { g.done.put(doneWork{applied: &b}, 0) },
		// Until Run the owner and the executor are one goroutine.
		configure: func(_ uint64, cc pb.ConfChangeI) (*pb.ConfState, error) { return g.node.ApplyConfChange(cc), nil },
		snapshots: c.Snapshots,
	}
	return g.metrics.register(c.Registerer)
}

func (g *Group) makeNode(f *facts) error {
	c := g.config
	at := c.Engine.AppliedIndex()
	log := newRaftLog(c.Log, f.conf, at.Index)
	log.offer = g.offerSnapshot
	node, err := raft.NewRawNode(&raft.Config{
		ID: c.ID, ElectionTick: c.ElectionTicks, HeartbeatTick: 1, Storage: log, Applied: at.Index,
		AsyncStorageWrites: true, MaxSizePerMsg: messageBytesMax, MaxCommittedSizePerReady: applyBytesMax,
		MaxUncommittedEntriesSize: uncommittedBytesMax, MaxInflightMsgs: inflightMax, MaxInflightBytes: inflightBytesMax,
		CheckQuorum: true, PreVote: true, ReadOnlyOption: readOnly(), DisableProposalForwarding: true,
		StepDownOnRemoval: true, Logger: raftLogger{g.log},
	})
	if err != nil {
		return fmt.Errorf("make the Raft node: %w", err)
	}
	g.owned = owned{node: node, applied: at.Index, proposed: make(map[uint64]*call), records: make(map[string]uint64), heard: make(map[uint64]uint64), sending: make(map[uint64]uint64)}
	g.term, g.commit = log.hardState.GetTerm(), log.hardState.GetCommit()
	if g.committedTerm, err = c.Log.Term(g.commit); err != nil {
		return fmt.Errorf("the term of the committed entry %d: %w", g.commit, err)
	}
	g.publishStatus()
	return nil
}

// readOnly is how the leader is confirmed for reads: by a quorum, each time.
func readOnly() raft.ReadOnlyOption {
	if mutant("read_without_quorum") {
		return raft.ReadOnlyLeaseBased
	}
	return raft.ReadOnlySafe
}

// replay applies what is known to be committed, in this goroutine: without a
// tick or a message Raft has nothing else to do.
func (g *Group) replay(r *Recovery) error {
	r.Commit = g.commit
	r.Replayed = g.commit - g.applied
	for g.applied < r.Commit {
		before := g.applied
		g.turn()
		if err := g.applier.step(); err != nil {
			return err
		}
		g.turn()
		if g.applied == before {
			return fmt.Errorf("the log holds nothing to apply after entry %d, though %d is committed", before, r.Commit)
		}
	}
	return nil
}

// Recovery is what Open found and did.
func (g *Group) Recovery() Recovery { return g.recovery }

// Run takes part in the cluster until ctx ends (then it returns nil) or
// something is wrong that this member must not survive: the process must end.
func (g *Group) Run(ctx context.Context) error {
	g.applier.configure, g.applier.check = g.configure, g.checker.take
	executors := threads.Crew{Threads: g.config.Threads}
	executors.Run("append", func() { g.execute(g.wakeAppend, g.appender.step) })
	executors.Run("apply", func() { g.execute(g.wakeApply, g.applier.step) })
	executors.Run("send", func() { g.execute(g.wakeSend, g.sender.step) })
	executors.Run("flush", g.flushNowAndThen)
	executors.Run("compact", g.compactNowAndThen)
	executors.Run("check", g.checkStates)
	g.own(ctx)
	executors.Wait()
	g.applier.follow()
	g.answerAll()
	if err := g.incoming.close(); err != nil {
		g.log.Warn("what came of a snapshot is removed at the next start", "error", err)
	}
	err := context.Cause(g.ctx)
	if !errors.Is(err, ErrStopped) {
		return err
	}
	if err := g.config.Engine.Flush(); err != nil {
		return fmt.Errorf("flush the state at the end: %w", err)
	}
	return nil
}

// fail ends Run with an error; the first one counts.
func (g *Group) fail(err error) { g.stop(err) }

// execute calls step whenever there is something to do.
func (g *Group) execute(wake <-chan struct{}, step func() error) {
	for next(g, wake) {
		if err := step(); err != nil {
			g.fail(err)
			return
		}
	}
}

// own is the owner's loop. Its end is the end of all.
func (g *Group) own(ctx context.Context) {
	defer g.stop(ErrStopped)
	ticks, stop := g.config.Clock.Ticker(g.config.Tick)
	defer stop()
	g.begin()
	for {
		g.turn()
		switch ticked, ended := g.nextTurn(ctx, ticks); {
		case ended:
			return
		case ticked:
			g.tick()
		}
	}
}

// begin has the only voter campaign at once: there is nobody to wait for.
func (g *Group) begin() {
	if !g.onlyVoter() {
		return
	}
	if err := g.node.Campaign(); err != nil {
		g.log.Warn("the only voter cannot campaign yet", "error", err)
	}
}

func (g *Group) onlyVoter() bool {
	conf := g.facts.Load().conf
	return len(conf.GetVotersOutgoing()) == 0 && slices.Equal(conf.GetVoters(), []uint64{g.config.ID})
}

// flushNowAndThen bounds the log that a crash leaves to replay.
func (g *Group) flushNowAndThen() {
	ticks, stop := g.config.Clock.Ticker(g.config.FlushEvery)
	defer stop()
	for next(g, ticks) {
		if err := g.config.Engine.Flush(); err != nil {
			g.fail(fmt.Errorf("flush the state: %w", err))
			return
		}
	}
}

// configure is the applier's way to the owner.
func (g *Group) configure(index uint64, cc pb.ConfChangeI) (*pb.ConfState, error) {
	w := &configureWork{index: index, change: cc, reply: make(chan *pb.ConfState, 1)}
	g.done.put(doneWork{configure: w}, 0)
	if t := g.config.Threads; t != nil {
		t.Park(func() bool { return len(w.reply) > 0 || g.ctx.Err() != nil })
	}
	select {
	case conf := <-w.reply:
		return conf, nil
	case <-g.ctx.Done():
		return nil, context.Cause(g.ctx)
	}
}

// respond delivers an answer of the appender.
func (g *Group) respond(m *pb.Message) {
	if m.GetTo() == g.config.ID {
		g.done.put(doneWork{message: m}, 0)
		return
	}
	g.sender.put(m)
}

// ReportUnreachable says that a message to a member was lost.
func (g *Group) ReportUnreachable(id uint64) { g.done.put(doneWork{unreachable: id}, 0) }
