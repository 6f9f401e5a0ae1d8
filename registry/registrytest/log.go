package registrytest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/storage"
)

// Start is when the clocks of tests begin.
func Start() time.Time { return time.UnixMilli(1_790_000_000_123) }

// StillClock does not move, so that no lease runs out.
type StillClock struct{}

// Now is always the same.
func (StillClock) Now() time.Time { return Start() }

// Ticker never ticks.
func (StillClock) Ticker(time.Duration) (<-chan time.Time, func()) { return nil, func() {} }

// A Log commits what is proposed at once, on all its members, and what is proposed
// again under its request id not once more. The fields are what a test plays with:
// change them with Set.
type Log struct {
	Fault   error     // what every call ends with; nil = it is done
	Hang    bool      // calls wait until their time is over
	FreshAt time.Time // what Fresh says
	// Requests are the ids of all that was proposed, in order; "" stands for none.
	Requests []string

	tb  testing.TB
	now func() time.Time

	mu      sync.Mutex // guards what follows and what is above, and is the goroutine that applies
	index   registry.Revision
	members []*Member
	done    map[string]registry.Applied // by request id
}

// NewLog makes a log whose entries are of the time that now says. Begin comes when its
// members are there.
func NewLog(tb testing.TB, now func() time.Time) *Log {
	return &Log{tb: tb, now: now, done: make(map[string]registry.Applied)}
}

// Set changes what is played.
func (l *Log) Set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// A Member applies a log to a state in memory. It is the replicator of its registry.
type Member struct {
	Engine  *storage.Engine
	Machine *registry.Machine

	log  *Log
	away chan struct{} // open while it is told of no entries, else nil; guarded by the log's mu
}

// NewMember makes a member; its engine is there until the test ends.
func (l *Log) NewMember(c registry.MachineConfig) *Member {
	l.tb.Helper()
	engine, err := storage.OpenEngine(storage.EngineOptions{FS: vfs.NewMem(), Dir: "state"})
	if err != nil {
		l.tb.Fatalf("open the engine: %v", err)
	}
	l.tb.Cleanup(func() {
		if err := engine.Close(); err != nil {
			l.tb.Errorf("close the engine: %v", err)
		}
	})
	m := &Member{Engine: engine, log: l}
	m.Open(c)
	l.Set(func() { l.members = append(l.members, m) })
	return m
}

// Begin commits the empty entry that a leader begins with.
func (l *Log) Begin() { l.Set(func() { l.commit(nil) }) }

// Open has the member read its state, as a start does.
func (m *Member) Open(c registry.MachineConfig) {
	m.log.tb.Helper()
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	c.Engine, c.Now = m.Engine, m.log.now
	var err error
	if m.Machine, err = registry.OpenMachine(c); err != nil {
		m.log.tb.Fatalf("open the machine: %v", err)
	}
}

// Leave has the member be told of no entries, until it takes over another's state.
func (m *Member) Leave() { m.log.Set(func() { m.away = make(chan struct{}) }) }

// Install has a member that has left take over the state of another, as consensus does.
func (m *Member) Install(from *Member) {
	m.log.tb.Helper()
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	if err := m.install(from); err != nil {
		m.log.tb.Fatalf("install another member's state: %v", err)
	}
	close(m.away)
	m.away = nil
}

func (m *Member) install(from *Member) error {
	state, err := from.Engine.Snapshot()
	if err != nil {
		return err
	}
	var stream bytes.Buffer
	_, err = state.WriteTo(&stream)
	if err := errors.Join(err, state.Close(), m.Engine.Restore(&stream)); err != nil {
		return err
	}
	return m.Machine.Install(m.log.index)
}

// commit applies and publishes an entry on all members that are there; the caller holds mu.
func (l *Log) commit(data []byte) (applied registry.Applied) {
	l.index++
	for _, m := range l.members {
		if m.away != nil {
			continue
		}
		b := m.Engine.NewBatch()
		reply := m.Machine.Apply(b, registry.Entry{Index: l.index, Term: 1, Time: l.now().UnixMilli(), Data: data})
		if err := m.Engine.Apply(b, storage.Position{Index: uint64(l.index), Term: 1}); err != nil {
			l.tb.Errorf("apply entry %d to the engine: %v", l.index, err)
		}
		m.Machine.Publish(l.index)
		applied = registry.Applied{Revision: l.index, Reply: reply}
	}
	return applied
}

// faulty is what the test has switched on.
func (l *Log) faulty(ctx context.Context) error {
	l.mu.Lock()
	fault, hang := l.Fault, l.Hang
	l.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return fault
}

// Propose commits a command.
func (m *Member) Propose(ctx context.Context, requestID string, command []byte) (registry.Applied, error) {
	l := m.log
	if err := l.faulty(ctx); err != nil {
		return registry.Applied{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Requests = append(l.Requests, requestID)
	if applied, known := l.done[requestID]; known && requestID != "" {
		return applied, nil
	}
	applied := l.commit(command)
	l.done[requestID] = applied
	return applied, nil
}

// Barrier is the newest revision, once the member has it.
func (m *Member) Barrier(ctx context.Context) (registry.Revision, error) {
	if err := m.log.faulty(ctx); err != nil {
		return 0, err
	}
	m.log.mu.Lock()
	away := m.away
	m.log.mu.Unlock()
	if away != nil {
		select {
		case <-away:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	return m.log.index, nil
}

// Fresh is as the test has set it.
func (m *Member) Fresh() time.Time {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	return m.log.FreshAt
}

// AskLeader asks the member itself.
func (m *Member) AskLeader(ctx context.Context, request []byte) ([]byte, error) {
	if err := m.log.faulty(ctx); err != nil {
		return nil, err
	}
	return m.Machine.Answer(ctx, request)
}
