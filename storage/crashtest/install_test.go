package crashtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stellmap/stellmap/storage"
)

// ahead is the history of a member that is ahead: what is committed here, and
// more that is committed there.
func (p *player) ahead() history {
	h := p.k.now.cut(p.k.commit() + 1)
	p.term++
	more := make([]storage.Entry, 1+p.random.IntN(30))
	for i := range more {
		data := make([]byte, p.random.IntN(p.tuning.large))
		for k := range data {
			data[k] = byte(p.random.Uint32())
		}
		if len(data) > 0 {
			data[0] %= 32
		}
		more[i] = storage.Entry{Index: h.last() + 1 + uint64(i), Term: p.term, Data: data}
	}
	return h.append(more, nil)
}

// snapshotOf is what the member that is ahead sends.
func (p *player) snapshotOf(h history) (m storage.SnapshotMeta, file []byte, err error) {
	fs := vfs.NewMem()
	e, err := storage.OpenEngine(storage.EngineOptions{FS: fs, Dir: "state", CacheBytes: cacheBytes})
	if err != nil {
		return m, nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	s := state{}
	for _, entry := range h.entries {
		s.apply(entry)
	}
	b := e.NewBatch()
	for key, value := range s {
		b.Set([]byte(key), []byte(value))
	}
	if err := e.Apply(b, storage.Position{Index: h.last(), Term: h.term(h.last())}); err != nil {
		return m, nil, err
	}
	snapshot, err := e.Snapshot()
	if err != nil {
		return m, nil, err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	snapshots, err := storage.OpenSnapshots(storage.SnapshotsOptions{FS: fs, Dir: "snapshot"})
	if err != nil {
		return m, nil, err
	}
	m, err = snapshots.Save(background, snapshot, storage.SnapshotMeta{ClusterID: founding.ClusterID, Incarnation: "first", Created: 1, Configuration: "1"})
	if err != nil {
		return m, nil, err
	}
	in, err := snapshots.OpenFile(m)
	if err != nil {
		return m, nil, err
	}
	file, err = io.ReadAll(io.NewSectionReader(in, 0, m.FileBytes))
	return m, file, errors.Join(err, in.Close())
}

// receive takes the file in pieces.
func (p *player) receive(m storage.SnapshotMeta, file []byte) error {
	r, err := p.snapshots.Receive(m)
	if err != nil {
		return err
	}
	for len(file) > 0 {
		n := min(len(file), 1+p.random.IntN(4096))
		if _, err := r.Write(bytes.Clone(file[:n])); err != nil {
			return err
		}
		file = file[n:]
	}
	_, err = r.Finish(background)
	return err
}

// receiveDamage: what is not what was sent is not taken, and what does not come
// to its end leaves nothing.
func (p *player) receiveDamage() error {
	m, file, err := p.snapshotOf(p.ahead())
	if err != nil {
		return err
	}
	if p.random.IntN(2) == 0 {
		file = file[:p.random.IntN(len(file))]
	} else {
		file[p.random.IntN(len(file))] ^= 1 << p.random.IntN(8)
	}
	var wrong *storage.SnapshotError
	if err := p.receive(m, file); !errors.As(err, &wrong) {
		return fmt.Errorf("a snapshot that was damaged on its way was taken in: %w", orNone(err))
	}
	return nil
}

// install is what a member does that is sent a snapshot: it receives it, begins
// its log anew after it, and makes it its state.
func (p *player) install() error {
	h := p.ahead()
	m, file, err := p.snapshotOf(h)
	if err != nil {
		return err
	}
	if planted("reset_before_snapshot") {
		if err := p.beginAnew(h); err != nil {
			return err
		}
	}
	p.know(func(k *knowledge) { k.saving, k.received = m.Index, h })
	if err := p.receive(m, file); err != nil {
		return err
	}
	p.know(func(k *knowledge) { k.saved, k.saving = m.Index, 0 })
	p.settle()
	if p.random.IntN(4) == 0 {
		return p.restart() // and the leader sends it again: it is there
	}
	return p.installReceived()
}

// installReceived installs the snapshot that is there.
func (p *player) installReceived() (err error) {
	h := p.k.received
	m, ok := p.snapshots.Find(storage.Position{Index: h.last(), Term: h.term(h.last())})
	if !ok {
		return fmt.Errorf("the snapshot at %d was received, and is not there", h.last())
	}
	old, err := p.engine.Snapshot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	was, err := old.Hash(background)
	if err != nil {
		return err
	}
	steps := []func() error{func() error { return p.beginAnew(h) }, func() error { return p.restore(m) }}
	if planted("restore_before_reset") {
		steps[0], steps[1] = steps[1], steps[0]
	}
	for _, do := range steps {
		if err := do(); err != nil {
			return err
		}
		p.settle()
	}
	p.know(func(k *knowledge) { k.installing, k.received = false, history{} })
	if is, err := old.Hash(background); err != nil || is != was {
		return fmt.Errorf("a moment in the state that was replaced is another: %w", orNone(err))
	}
	return p.k.stateIs(p.engine)
}

// beginAnew is the first step.
func (p *player) beginAnew(h history) error {
	h.entries = slices.Clip(h.entries) // others may have the same
	h.hard = storage.HardState{Term: p.term, Vote: p.random.Uint64N(4), Commit: h.last()}
	at := storage.Position{Index: h.last(), Term: h.term(h.last())}
	p.know(func(k *knowledge) {
		k.now, k.installing, k.reset = h, true, at.Index
		k.may = append(k.may[:len(k.may):len(k.may)], h)
	})
	p.commit()
	if err := p.log.Reset(at, h.hard); err != nil {
		return err
	}
	p.know(func(k *knowledge) { k.acknowledge() })
	p.stable = at.Index
	return nil
}

// restore is the second.
func (p *player) restore(m storage.SnapshotMeta) error {
	in, err := p.snapshots.Open(m)
	if err != nil {
		return err
	}
	if err := errors.Join(p.engine.Restore(in), in.Close()); err != nil {
		return err
	}
	p.isDurable(m.Index)
	return nil
}
