package storage

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// A state travels as a stream:
//
//	"SMSTATE1"
//	pairs   length of key (4 bytes, big-endian, > 0), length of value (4), key, value
//	end     0 (4 bytes)
//	SHA-256 of all before it
//
// The applied position is one of the pairs.

const (
	stateMagic    = "SMSTATE1"
	keyBytesMax   = 4 << 10
	valueBytesMax = 8 << 20
	// restoreBatchBytes is how much Restore writes at a time.
	restoreBatchBytes = 1 << 20
)

// EngineSnapshot is the state at one moment, whatever is applied after, and
// also when Restore replaces the state.
type EngineSnapshot struct {
	db *stateDB
	s  *pebble.Snapshot
	at Position
}

// Snapshot takes the state as it is. Only the goroutine that applies may call;
// reading it is anybody's.
func (e *Engine) Snapshot() (*EngineSnapshot, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.db == nil {
		return nil, ErrClosed
	}
	return &EngineSnapshot{e.db, e.db.snapshot(), e.applied}, nil
}

// Applied is the position that the snapshot is the result of.
func (s *EngineSnapshot) Applied() Position { return s.at }

// Get returns a copy of the value, or false when there is none.
func (s *EngineSnapshot) Get(key []byte) ([]byte, bool, error) { return get(s.s, key) }

// Close lets go of the moment.
func (s *EngineSnapshot) Close() error { return s.db.release(s.s) }

// WriteTo streams the snapshot with bounded memory.
func (s *EngineSnapshot) WriteTo(w io.Writer) (int64, error) {
	out := &stateWriter{w: bufio.NewWriter(w), sum: sha256.New()}
	out.write([]byte(stateMagic))
	err := scan(s.s, nil, nil, func(key, value []byte) error {
		if mutant("snapshot_at_wrong_index") && string(key) == appliedKey {
			value = encodePosition(s.at)
		}
		head := pairHead(key, value)
		out.write(head[:])
		out.write(key)
		out.write(value)
		return out.err
	})
	out.write(make([]byte, 4))
	out.write(out.sum.Sum(nil))
	if err == nil {
		err = out.err
	}
	if err == nil {
		err = out.w.Flush()
	}
	if err != nil {
		return out.n, fmt.Errorf("write the state at index %d: %w", s.at.Index, err)
	}
	return out.n, nil
}

// pairHead is the lengths of a pair.
func pairHead(key, value []byte) (head [8]byte) {
	binary.BigEndian.PutUint32(head[:], uint32(len(key)))
	binary.BigEndian.PutUint32(head[4:], uint32(len(value)))
	return head
}

// Hash is the SHA-256 of the replicated state at Applied, in hexadecimal: of
// all pairs in order, each with its lengths. All pairs are replicated, so two
// members have the same hash at the same position, whatever their disks did. It
// rests like the writing of a snapshot file.
func (s *EngineSnapshot) Hash(ctx context.Context) (string, error) {
	sum := sha256.New()
	out := &paced{w: stoppable{ctx: ctx, w: sum}, ctx: ctx, worked: time.Now()}
	err := scan(s.s, nil, nil, func(key, value []byte) error {
		head := pairHead(key, value)
		for _, part := range [...][]byte{head[:], key, value} {
			if _, err := out.Write(part); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("hash the state at index %d: %w", s.at.Index, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// stateWriter hashes and counts what it writes and keeps the first error.
type stateWriter struct {
	w   *bufio.Writer
	sum hash.Hash
	n   int64
	err error
}

func (o *stateWriter) write(p []byte) {
	if o.err != nil {
		return
	}
	if _, o.err = o.w.Write(p); o.err == nil {
		o.sum.Write(p)
		o.n += int64(len(p))
	}
}

// Restore replaces the state by the one in the stream. It is built in a folder
// beside the active one, checked to its last byte, flushed, and then switched
// to by replacing one small file: after a crash at any moment the old state is
// there, or the new one. On error the old one stays. Snapshots of the old one
// can be read until they are closed; its folder stays as long.
func (e *Engine) Restore(r io.Reader) error {
	if e.db == nil { // only this goroutine changes it
		return ErrClosed
	}
	number, err := strconv.ParseUint(e.db.name, 10, 32)
	if err != nil {
		panic(fmt.Sprintf("storage: active folder %q is not a number", e.db.name))
	}
	name := strconv.FormatUint(number+1, 10)
	if err := e.o.FS.RemoveAll(e.o.FS.PathJoin(e.o.Dir, name)); err != nil { // of one that failed
		return fmt.Errorf("restore the state: %w", err)
	}
	db, err := e.openPebble(name)
	if err != nil {
		return fmt.Errorf("restore the state: %w", err)
	}
	at, err := fill(db.DB, r)
	if err == nil {
		err = unless("switch_before_flush", func() error { return e.broken.flush(db.DB) })
	}
	if err == nil {
		err = e.switchTo(db, at)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("restore the state: %w", err), db.Close(), e.o.FS.RemoveAll(e.o.FS.PathJoin(e.o.Dir, name)))
	}
	return nil
}

// switchTo makes db the state and removes the old one, when nobody reads it any
// more.
func (e *Engine) switchTo(db *stateDB, at Position) error {
	old, err := e.exchange(db, at)
	if err != nil {
		return err
	}
	old.replace(func() {
		if err := errors.Join(old.Close(), e.o.FS.RemoveAll(e.o.FS.PathJoin(e.o.Dir, old.name))); err != nil {
			e.o.Logger.Warn("the replaced state is removed at the next start", "folder", old.name, "error", err)
		}
	})
	return nil
}

func (e *Engine) exchange(db *stateDB, at Position) (old *stateDB, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := syncDir(e.o.FS, e.o.Dir); err != nil {
		return nil, err
	}
	if err := writeFileAtomic(e.o.FS, e.o.Dir, currentFile, []byte(db.name)); err != nil {
		// Whether the name changed on disk is unknown: neither folder may go.
		panic(fmt.Sprintf("storage: switch to the restored state %s: %v", db.name, err))
	}
	old = e.db
	e.db, e.applied = db, at
	return old, nil
}

// fill reads a stream into an empty database.
func fill(db *pebble.DB, r io.Reader) (Position, error) {
	batch := db.NewBatch()
	err := readState(r, func(key, value []byte) error {
		if err := batch.Set(key, value, nil); err != nil || batch.Len() < restoreBatchBytes {
			return err
		}
		err := errors.Join(db.Apply(batch, pebble.NoSync), batch.Close())
		batch = db.NewBatch()
		return err
	})
	if err == nil {
		err = db.Apply(batch, pebble.NoSync)
	}
	if err := errors.Join(err, batch.Close()); err != nil {
		return Position{}, err
	}
	return readApplied(db, nil)
}

// readState calls fn for each pair of a stream in order, and then checks it.
// Key and value are fn's to keep.
func readState(r io.Reader, fn func(key, value []byte) error) error {
	in := &stateReader{r: bufio.NewReader(r), sum: sha256.New()}
	if magic := in.read(len(stateMagic)); in.err == nil && string(magic) != stateMagic {
		return fmt.Errorf("the stream begins with %q, not %q", magic, stateMagic)
	}
	for {
		key, value, ok := in.pair()
		if in.err != nil {
			return fmt.Errorf("read the stream at byte %d: %w", in.n, in.err)
		}
		if !ok {
			return in.checkSum()
		}
		if err := fn(key, value); err != nil {
			return err
		}
	}
}

// stateReader hashes and counts what it reads and keeps the first error.
type stateReader struct {
	r   *bufio.Reader
	sum hash.Hash
	n   int64
	err error
}

func (in *stateReader) read(n int) []byte {
	if in.err != nil {
		return nil
	}
	p := make([]byte, n)
	if _, in.err = io.ReadFull(in.r, p); in.err == nil {
		in.sum.Write(p)
		in.n += int64(n)
	}
	return p
}

// pair reads one key and value; false at the end.
func (in *stateReader) pair() (key, value []byte, ok bool) {
	head := in.read(4)
	if in.err != nil || binary.BigEndian.Uint32(head) == 0 {
		return nil, nil, false
	}
	keyLen, valueLen := binary.BigEndian.Uint32(head), uint32(0)
	if head = in.read(4); in.err == nil {
		valueLen = binary.BigEndian.Uint32(head)
	}
	if in.err == nil && (keyLen > keyBytesMax || valueLen > valueBytesMax) {
		in.err = fmt.Errorf("a pair of %d and %d bytes, more than %d and %d", keyLen, valueLen, keyBytesMax, valueBytesMax)
	}
	if in.err != nil {
		return nil, nil, false
	}
	key, value = in.read(int(keyLen)), in.read(int(valueLen))
	return key, value, in.err == nil
}

func (in *stateReader) checkSum() error {
	want := in.sum.Sum(nil)
	var got [sha256.Size]byte
	if _, err := io.ReadFull(in.r, got[:]); err != nil {
		return fmt.Errorf("read the stream's checksum: %w", err)
	}
	if string(got[:]) != string(want) {
		return fmt.Errorf("the stream's checksum is %x, its content has %x", got, want)
	}
	switch _, err := in.r.ReadByte(); err {
	case io.EOF:
		return nil
	case nil:
		return errors.New("the stream goes on after its checksum")
	default: // of a reader that checks what it reads, and has found something
		return fmt.Errorf("read the stream's end: %w", err)
	}
}
