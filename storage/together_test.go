package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A member as storage sees it: entries are appended and synced, then applied;
// now and then the state is flushed, and the log truncated to what is durable in
// it. Whenever the power is cut, applying the log's rest to the state gives what
// all acknowledged entries make, and none is missing.
func TestLogAndStateSurviveACrashTogether(t *testing.T) {
	forSeeds(t, 60, func(t *testing.T, random *rand.Rand) {
		m := &member{t: t, random: random, fs: vfs.NewCrashableMem()}
		check(m.fs.MkdirAll("data", 0o700))
		check(syncDir(m.fs, "."))
		m.open()
		for range 4 {
			for range 1 + random.IntN(30) {
				m.step()
			}
			m.crash()
		}
		if err := errors.Join(m.log.Close(), m.engine.Close()); err != nil {
			t.Fatal(err)
		}
	})
}

type member struct {
	t            *testing.T
	random       *rand.Rand
	fs           *vfs.MemFS
	log          *Log
	engine       *Engine
	acknowledged uint64 // appended and synced
}

func (m *member) open() {
	m.t.Helper()
	m.engine = openTestEngine(m.t, m.fs)
	var err error
	m.log, err = OpenLog(LogOptions{
		FS: m.fs, Dir: "data/wal", Applied: m.engine.AppliedIndex().Index, Salt: m.random.Uint64, SegmentBytes: 500, TailBytes: 500,
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) step() {
	m.t.Helper()
	var err error
	switch m.random.IntN(8) {
	case 0:
		err = m.engine.Flush()
	case 1:
		var durable uint64
		if durable, err = m.engine.DurableIndex(); err == nil {
			err = m.log.TruncatePrefix(durable)
		}
	case 2, 3:
		err = m.apply(m.engine.AppliedIndex().Index + 1 + m.random.Uint64N(3))
	default:
		last := m.log.LastIndex()
		entries := run(last+1, 1, 1+m.random.IntN(3), 0)
		for i := range entries {
			entries[i].Data = fmt.Append(nil, "entry ", entries[i].Index)
		}
		if err = errors.Join(m.log.Append(entries, &HardState{Term: 1, Commit: last}), m.log.Sync()); err == nil {
			m.acknowledged = m.log.LastIndex()
		}
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// apply applies what is synced, up to an index: each entry is one key, and the
// newest one is told by another.
func (m *member) apply(to uint64) error {
	from := m.engine.AppliedIndex().Index + 1
	if to = min(to, m.acknowledged); from > to {
		return nil
	}
	entries, err := readAll(m.log, from, to+1, 100)
	if err != nil {
		return fmt.Errorf("entries from %d to %d: %w", from, to, err)
	}
	for _, e := range entries {
		put(m.t, m.engine, Position{e.Index, e.Term}, fmt.Sprintf("entry/%06d", e.Index), string(e.Data), "newest", fmt.Sprint(e.Index))
	}
	return nil
}

// crash cuts the power, opens what is left and applies the rest of the log.
func (m *member) crash() {
	m.t.Helper()
	left := m.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100 * m.random.IntN(2), RNG: m.random})
	if err := errors.Join(m.log.active.file.Close(), m.engine.Close()); err != nil {
		m.t.Fatal(err)
	}
	m.fs = left
	m.open()
	if got := m.log.LastIndex(); got < m.acknowledged {
		m.t.Fatalf("the log ends at %d, though %d was acknowledged", got, m.acknowledged)
	}
	if err := m.apply(m.acknowledged); err != nil {
		m.t.Fatal(err)
	}
	n := uint64(0)
	if err := m.engine.Scan([]byte("entry/"), PrefixEnd([]byte("entry/")), func(key, value []byte) error {
		if n++; string(key) != fmt.Sprintf("entry/%06d", n) || string(value) != fmt.Sprint("entry ", n) {
			return fmt.Errorf("%s is %q, where entry %d should be", key, value, n)
		}
		return nil
	}); err != nil {
		m.t.Fatal(err)
	}
	if newest, _, err := m.engine.Get([]byte("newest")); err != nil || n != m.acknowledged || n > 0 && string(newest) != fmt.Sprint(n) {
		m.t.Fatalf("%d entries are in the state, the newest is %q, want %d: %v", n, newest, m.acknowledged, err)
	}
}
