package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/internal/threads"
	"github.com/stellmap/stellmap/storage"
)

// Member is one line of the address book.
type Member struct {
	ID   uint64
	UUID string // of its data directory; empty until it is known
	// The addresses at which others reach it.
	HTTP, XDS, GRPC, Admin string
	Since                  uint64 // the entry that made it a member; 0 for the founders
	Removed                bool   // it is none any more, and the id is nobody's for ever
}

// Entry is a committed command.
type Entry struct {
	Index, Term uint64
	Time        int64 // the leader's clock when it was proposed, Unix ms; it never falls
	Data        []byte
}

// Machine is the replicated state. All but Answer are called by one goroutine.
type Machine interface {
	// Apply adds what the command changes to the batch. It is deterministic:
	// the same entries make the same batches on every member. Several entries
	// may share a batch.
	Apply(b *storage.Batch, e Entry) (reply []byte)
	// Publish says that the engine holds everything up to index; it may now be
	// seen. It is called once after each batch.
	Publish(index uint64)
	// Install says that the engine has another state now, of the later index: what
	// was applied and not published is void, and all that is kept in memory is to be
	// read anew. An error ends the member.
	Install(index uint64) error
	// Lead says that this member leads the term and has applied an entry of it,
	// hence everything that was committed before.
	Lead(term uint64)
	// Follow ends what Lead began. Each Lead has exactly one Follow.
	Follow()
	// Answer answers a member's Ask; it is called on the leader, from any
	// goroutine. Leadership may end while it works: what it answers must be
	// true anyway, or it uses Barrier.
	Answer(ctx context.Context, request []byte) (reply []byte, err error)
}

// Clock is where time comes from.
type Clock interface {
	Now() time.Time
	// Ticker sends the time every d until stop is called; a tick that nobody
	// took is dropped.
	Ticker(d time.Duration) (ticks <-chan time.Time, stop func())
}

// systemClock is the clock of the machine that this runs on.
type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) Ticker(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTicker(d)
	return t.C, t.Stop
}

// Config is what a Group is made of.
type Config struct {
	// ID, cluster and first members as they were given to Found.
	ID, ClusterID uint64
	Members       []Member
	Self          Member // the addresses of this member today; ID and UUID are filled in
	// Joining is what a member that did not found the cluster was told when it
	// asked to be taken in. It is needed until the log has told more.
	Joining Joining

	Identity     storage.Identity // what Found returned
	IdentityFile IdentityFile     // where it is kept
	Log          *storage.Log     // opened with Base() and the engine's applied index
	Engine       *storage.Engine
	Machine      Machine
	Transport    Transport

	Tick          time.Duration // default 100 ms; a heartbeat goes out every tick
	ElectionTicks int           // default 8; an election begins after 8–15 ticks of silence
	// CallTimeout bounds how long a call waits for a leader, and a forwarded
	// one for the leader's answer. Default 1 s.
	CallTimeout time.Duration
	// CommitTimeout bounds how long a proposal that is in the leader's log
	// waits to be applied here. Default 3 s.
	CommitTimeout time.Duration
	// FlushEvery is how often the engine is made durable, which is how much
	// log a crash leaves to replay. Default 30 s.
	FlushEvery time.Duration

	// Snapshots is where snapshots of the state are kept; nil = none are taken,
	// and the log is never cut.
	Snapshots *storage.Snapshots
	// A snapshot is due when so many entries were applied since the last one,
	// or so many bytes of entries appended. Default 500,000 and 256 MiB.
	SnapshotEntries, SnapshotBytes uint64
	// LogTail is how many entries stay before the first that anybody needs.
	// Default 10,000.
	LogTail uint64
	// CompactEvery is how often it is looked whether a snapshot is due and how
	// far the log may be cut. Default 1 s.
	CompactEvery time.Duration

	// CheckEvery is how often the members' states are compared, if something has
	// changed. Negative = never. Default 1 min.
	CheckEvery time.Duration

	// BehindMax is how many entries a learner may lack and be promoted, or a voter
	// and be handed the leadership. Default 1,000.
	BehindMax uint64

	// Low tells whether this member's disk is nearly full; nil = never. While it is
	// so for the leader, or for so many that no quorum is left, proposals that
	// grow are ErrFull.
	Low func() bool
	// Grows tells whether a command makes what members keep larger. It is asked
	// only while what grows is refused, by the owner. Nil = every command does.
	Grows func(command []byte) bool

	Clock      Clock           // nil = the system's
	Threads    threads.Threads // nil = goroutines
	Random     func() uint64   // nil = crypto/rand; names rounds and the incarnation
	Logger     *slog.Logger    // nil = none
	Registerer prometheus.Registerer
}

// Base is where the log of a new cluster begins: the entry before its first
// stands for the configuration of the first members.
func Base() storage.Position { return storage.Position{Index: 1, Term: 1} }

// Limits. Each says what happens when it is reached.
const (
	// entryBytesMax is the largest command; a larger one is ErrTooLarge.
	entryBytesMax = 2 << 20
	// requestIDBytesMax is the longest request id; a longer one is ErrTooLarge.
	requestIDBytesMax = 256
	// callsMax is how many calls wait for the owner; the next is ErrBusy.
	callsMax = 8192
	// proposalsPerTurnBytes is how much goes into one proposal to Raft, and so
	// into one message to each follower. The rest waits for the next turn.
	proposalsPerTurnBytes = 1 << 20
	// waitersMax is how many calls wait for a leader, a commit or a barrier;
	// the next is ErrBusy.
	waitersMax = 16384
	// receivedMax and receivedBytesMax bound what peers sent and the owner has
	// not looked at; what comes above is dropped and counted, Raft sends again.
	receivedMax      = 4096
	receivedBytesMax = 64 << 20
	// appendQueueMax and appendQueueBytesMax bound what waits for the disk.
	// Above, proposals are ErrBusy and a leader's appends are dropped.
	appendQueueMax      = 1024
	appendQueueBytesMax = 64 << 20
	// appendFrameBytes is how much goes into one write of the log.
	appendFrameBytes = 4 << 20
	// sendQueueMax and sendQueueBytesMax bound what waits to be marshalled;
	// above, messages are dropped and counted, Raft sends again.
	sendQueueMax      = 8192
	sendQueueBytesMax = 64 << 20
	// applyBytesMax bounds the committed entries that wait to be applied; above,
	// Raft holds them back in the log.
	applyBytesMax = 16 << 20
	// uncommittedBytesMax bounds a leader's log that no quorum has yet; above,
	// proposals are ErrBusy.
	uncommittedBytesMax = 64 << 20
	// messageBytesMax bounds the entries in one message, unless it is a single
	// larger entry; inflightMax and inflightBytesMax what a follower may not
	// have answered yet, above which it is sent nothing more.
	messageBytesMax  = 1 << 20
	inflightMax      = 256
	inflightBytesMax = 64 << 20
	// roundResendTicks is after how long an unanswered ReadIndex is sent again:
	// Raft drops it in silence when there is no leader.
	roundResendTicks = 2
	// recordRetryTicks is after how long the leader proposes an entry of the
	// address book again that it does not see applied.
	recordRetryTicks = 20
)

// withDefaults fills what was left out and refuses what cannot work.
func (c Config) withDefaults() (Config, error) {
	setDefault(&c.Tick, 100*time.Millisecond)
	setDefault(&c.ElectionTicks, 8)
	setDefault(&c.CallTimeout, time.Second)
	setDefault(&c.CommitTimeout, 3*time.Second)
	setDefault(&c.FlushEvery, 30*time.Second)
	setDefault(&c.CompactEvery, time.Second)
	setDefault(&c.CheckEvery, time.Minute)
	setDefault(&c.SnapshotEntries, 500_000)
	setDefault(&c.SnapshotBytes, 256<<20)
	setDefault(&c.LogTail, 10_000)
	setDefault(&c.BehindMax, 1_000)
	if c.Clock == nil {
		c.Clock = systemClock{}
	}
	if c.Random == nil {
		c.Random = randomNumber
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Self.ID, c.Self.UUID = c.ID, c.Identity.UUID
	return c, c.check()
}

func setDefault[T time.Duration | int | uint64](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

func (c Config) check() error {
	switch {
	case c.Log == nil || c.Engine == nil || c.Machine == nil || c.Transport == nil || c.IdentityFile.Save == nil:
		return errors.New("consensus: log, engine, machine, transport and identity file are required")
	case c.ElectionTicks < 2:
		return fmt.Errorf("consensus: an election time-out of %d ticks is too short, want 2 at least", c.ElectionTicks)
	case c.Identity.NodeID != c.ID || c.Identity.ClusterID != c.ClusterID:
		return fmt.Errorf("consensus: the identity is of node %d in cluster %d, not of node %d in cluster %d", c.Identity.NodeID, c.Identity.ClusterID, c.ID, c.ClusterID)
	}
	return nil
}
