package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// receivedSuffix marks what comes from another member and is not complete.
const receivedSuffix = ".received"

// Receiving is a snapshot that comes from another member, piece by piece. It
// is one goroutine's at a time, and ends with Finish or Drop. What is left of
// one when the process ends is removed by the next OpenSnapshots.
type Receiving struct {
	s    *Snapshots
	meta SnapshotMeta
	path string
	file vfs.File
	out  *snapshotWriter
	good bool  // all of it has come, is durable and was read to its end
	err  error // what every later call returns
}

// Receive begins to take in a snapshot of which another member has sent the meta.
// There must be one at a time.
func (s *Snapshots) Receive(m SnapshotMeta) (*Receiving, error) {
	r := &Receiving{s: s, meta: m, path: s.path(snapshotName(m.Position()) + receivedSuffix + tempSuffix)}
	err := s.failed()
	if err == nil {
		err = r.begin()
	}
	if err != nil {
		return nil, fmt.Errorf("receive the snapshot at index %d: %w", m.Index, err)
	}
	return r, nil
}

func (r *Receiving) begin() error {
	if err := r.room(r.meta.FileBytes); err != nil {
		return err
	}
	file, err := r.s.o.FS.Create(r.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return r.s.ended(err)
	}
	r.file = file
	r.out = &snapshotWriter{file: file, sum: sha256.New(), room: func() error { return r.room(0) }}
	return nil
}

// room is ErrNoRoom when so much more would leave too little free.
func (r *Receiving) room(bytes int64) error { return hasRoomFor(r.s.o.FS, r.s.o.Dir, bytes) }

// Meta is of the snapshot that comes.
func (r *Receiving) Meta() SnapshotMeta { return r.meta }

// Bytes is how many there are: the next piece begins there.
func (r *Receiving) Bytes() int64 { return r.out.n }

// Write takes the next piece. The file may not become larger than was said.
func (r *Receiving) Write(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.out.n+int64(len(p)) > r.meta.FileBytes {
		return 0, r.end(context.Background(), &SnapshotError{r.path, fmt.Errorf("%d bytes come after %d, and its meta says %d in all", len(p), r.out.n, r.meta.FileBytes)})
	}
	n, err := r.out.Write(p)
	if err != nil {
		return n, r.end(context.Background(), err)
	}
	return n, nil
}

// ErrSaving is returned by Finish while a snapshot of this member takes its
// place. Nothing is lost: Finish may be called again.
var ErrSaving = errors.New("storage: a snapshot is just being saved")

// Finish takes the whole file among the snapshots, if it is what its meta says
// and holds a state of its position. It returns when the snapshot is durable.
// The older ones stay until the next is saved.
func (r *Receiving) Finish(ctx context.Context) (SnapshotMeta, error) {
	if r.err != nil {
		return SnapshotMeta{}, r.err
	}
	if !r.good {
		if err := r.verify(ctx); err != nil {
			return SnapshotMeta{}, r.end(ctx, err)
		}
		r.good = true
	}
	if !r.s.changing.TryLock() {
		return SnapshotMeta{}, ErrSaving
	}
	defer r.s.changing.Unlock()
	m, err := r.s.keep(r.path, r.meta, noneTooOld)
	if err != nil {
		r.err = fmt.Errorf("keep the received snapshot at index %d: %w", r.meta.Index, err)
		return SnapshotMeta{}, r.err
	}
	r.err = errors.New("storage: the received snapshot is kept already")
	return m, nil
}

// verify makes the file durable and reads it to its end.
func (r *Receiving) verify(ctx context.Context) error {
	err := r.complete()
	if err == nil {
		err = unless("receive_without_sync", r.file.Sync)
	}
	if err == nil {
		err = r.close()
	}
	if err == nil && !mutant("receive_unverified") {
		err = verifySnapshotState(ctx, r.s.o.FS, r.path, r.meta)
	}
	return err
}

// complete compares what has come with what was announced.
func (r *Receiving) complete() error {
	if r.out.n != r.meta.FileBytes {
		return &SnapshotError{r.path, fmt.Errorf("%d bytes have come, and its meta says %d", r.out.n, r.meta.FileBytes)}
	}
	if sum := hex.EncodeToString(r.out.sum.Sum(nil)); sum != r.meta.SHA256 && !mutant("receive_unverified") {
		return &SnapshotError{r.path, fmt.Errorf("its SHA-256 is %s, and its meta says %s", sum, r.meta.SHA256)}
	}
	return nil
}

// Drop removes what has come, unless it is kept.
func (r *Receiving) Drop() error {
	if r.err != nil {
		return nil
	}
	r.err = errors.New("storage: the received snapshot was dropped")
	return r.remove()
}

func (r *Receiving) close() error {
	if r.file == nil {
		return nil
	}
	file := r.file
	r.file = nil
	return file.Close()
}

// remove is about what is not kept; an error of the disk is final.
func (r *Receiving) remove() error {
	removed := r.s.o.FS.Remove(r.path)
	if errors.Is(removed, fs.ErrNotExist) {
		removed = nil
	}
	return r.s.ended(errors.Join(r.close(), removed))
}

// end removes what has come and makes an error final for it. Unless the sender
// did something wrong, there is no room or ctx has ended, it is one of the disk.
func (r *Receiving) end(ctx context.Context, err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	var wrong *SnapshotError
	if !errors.As(err, &wrong) && !errors.Is(err, ErrNoRoom) && !wasStopped(ctx, err) {
		err = r.s.ended(err)
	}
	r.err = fmt.Errorf("receive the snapshot at index %d: %w", r.meta.Index, errors.Join(err, r.remove()))
	return r.err
}

// ended notes an error of the disk, if there is one.
func (s *Snapshots) ended(err error) error {
	if err == nil {
		return nil
	}
	return s.fail(err)
}
