package storage

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/zstd"
)

// A snapshot file is the state's stream in one zstd frame. Its SHA-256 is in
// the meta; the stream ends with one of its own.
//
// Writing and reading take the same memory for a state of any size: the window
// about twice, the tables of the codec and the buffers, some 4 MiB in all, and
// what the garbage collector has not got to yet.
const (
	snapshotWindowBytes = 1 << 20
	snapshotBufferBytes = 256 << 10
	// snapshotBeginBytes is how much is written before the disk is asked to
	// begin, so that the sync at the end is short for those that wait behind it.
	snapshotBeginBytes = 4 << 20
	// snapshotRoomBytes must stay free while a snapshot is written, or the log
	// could not be written beside it, which would end the member.
	snapshotRoomBytes = 32 << 20
	// A snapshot works on so many bytes of the state and then rests so many times
	// as long, so that it takes a quarter of one processor at most. That is worth
	// more than being done soon: `make scale`, docs/performance.md.
	snapshotPieceBytes = 256 << 10
	snapshotRestTimes  = 3
	snapshotRestMax    = 100 * time.Millisecond
)

// writeSnapshotFile makes a durable file of a state and completes its meta.
// The name is not durable yet. On error the file may be there, in parts.
func writeSnapshotFile(ctx context.Context, fs vfs.FS, path string, state *EngineSnapshot, m SnapshotMeta) (SnapshotMeta, error) {
	room := func() error { return hasRoom(fs, fs.PathDir(path)) }
	if err := room(); err != nil {
		return m, err
	}
	file, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return m, err
	}
	out := &snapshotWriter{file: file, sum: sha256.New(), room: room}
	m.StateBytes, err = compress(ctx, out, state)
	if err == nil {
		err = unless("skip_snap_sync", file.Sync)
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	m.FileBytes, m.SHA256 = out.n, hex.EncodeToString(out.sum.Sum(nil))
	return m, errors.Join(err, file.Close())
}

// hasRoom is ErrNoRoom when too little is free. Where that cannot be seen, the
// disk says so when it is full.
func hasRoom(fs vfs.FS, dir string) error { return hasRoomFor(fs, dir, 0) }

// hasRoomFor is hasRoom when so many bytes more are written.
func hasRoomFor(fs vfs.FS, dir string, bytes int64) error {
	usage, err := fs.GetDiskUsage(dir)
	switch {
	case errors.Is(err, vfs.ErrUnsupported):
		return nil
	case err != nil:
		return fmt.Errorf("look at the free space of %s: %w", dir, err)
	case usage.AvailBytes < snapshotRoomBytes+uint64(bytes):
		return fmt.Errorf("%w: %d bytes are free, %d are to be written, and %d must stay free", ErrNoRoom, usage.AvailBytes, bytes, snapshotRoomBytes)
	}
	return nil
}

func compress(ctx context.Context, out io.Writer, state *EngineSnapshot) (int64, error) {
	buffer := bufio.NewWriterSize(out, snapshotBufferBytes)
	// One encoder at a time runs on this goroutine and needs no end on error.
	z, err := zstd.NewWriter(buffer, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(snapshotWindowBytes),
		zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return 0, err
	}
	n, err := state.WriteTo(&paced{w: stoppable{ctx: ctx, w: z}, ctx: ctx, worked: time.Now()})
	if err == nil {
		err = z.Close()
	}
	if err == nil {
		err = buffer.Flush()
	}
	return n, err
}

// paced is a writer that rests after each piece of work for some times as long
// as that took, whatever made it take long, a processor or a disk that others
// need too: writes that go on meanwhile are to feel little of it.
type paced struct {
	w      io.Writer
	ctx    context.Context
	n      int       // bytes since the last rest
	worked time.Time // since when
}

func (p *paced) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	if p.n += n; err != nil || p.n < snapshotPieceBytes {
		return n, err
	}
	rest := time.NewTimer(min(snapshotRestTimes*time.Since(p.worked), snapshotRestMax))
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-p.ctx.Done():
	}
	p.n, p.worked = 0, time.Now()
	return n, nil
}

// stoppable is a writer or a reader that ends with its context.
type stoppable struct {
	ctx context.Context
	w   io.Writer
	r   io.Reader
}

func (s stoppable) Write(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.w.Write(p)
}

func (s stoppable) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.r.Read(p)
}

// wasStopped tells whether the context is what an error comes from.
func wasStopped(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, context.Cause(ctx))
}

// snapshotWriter counts and hashes what it writes.
type snapshotWriter struct {
	file     vfs.File
	sum      hash.Hash
	room     func() error // asked now and then
	n, begun int64
}

func (w *snapshotWriter) Write(p []byte) (int, error) {
	w.sum.Write(p) // first: a vfs.File may use p as it likes
	n, err := w.file.Write(p)
	w.n += int64(n)
	if err == nil && w.n-w.begun >= snapshotBeginBytes {
		w.begun = w.n
		if _, err = w.file.SyncTo(w.n); err == nil { // promises nothing; Sync does
			err = w.room()
		}
	}
	return n, err
}

// OpenSnapshotFile opens the state's stream of a pair of files under any name.
// The last read verifies sizes and checksum: whoever stops before io.EOF has
// verified nothing.
func OpenSnapshotFile(fs vfs.FS, snapPath, metaPath string) (SnapshotMeta, io.ReadCloser, error) {
	m, err := ReadSnapshotMeta(fs, metaPath)
	if err != nil {
		return SnapshotMeta{}, nil, err
	}
	r, err := openSnapshotFile(fs, snapPath, m)
	if err != nil {
		return SnapshotMeta{}, nil, err
	}
	return m, r, nil
}

// VerifySnapshotFile reads a pair of files to its end: sizes, both checksums,
// and that the state is of the position that the meta says.
func VerifySnapshotFile(fs vfs.FS, snapPath, metaPath string) (SnapshotMeta, error) {
	return verifySnapshotFile(context.Background(), fs, snapPath, metaPath)
}

func verifySnapshotFile(ctx context.Context, fs vfs.FS, snapPath, metaPath string) (SnapshotMeta, error) {
	m, err := ReadSnapshotMeta(fs, metaPath)
	if err != nil {
		return SnapshotMeta{}, err
	}
	return m, verifySnapshotState(ctx, fs, snapPath, m)
}

// verifySnapshotState reads a file to its end and holds it against its meta.
func verifySnapshotState(ctx context.Context, fs vfs.FS, snapPath string, m SnapshotMeta) error {
	r, err := openSnapshotFile(fs, snapPath, m)
	if err != nil {
		return err
	}
	at, err := positionInState(stoppable{ctx: ctx, r: r})
	if err == nil && at != m.Position() {
		err = fmt.Errorf("its state is of index %d and term %d, and its meta says %d and %d", at.Index, at.Term, m.Index, m.Term)
	}
	err = errors.Join(err, r.Close())
	var named *SnapshotError
	if err != nil && !wasStopped(ctx, err) && !errors.As(err, &named) {
		err = &SnapshotError{snapPath, err}
	}
	return err
}

// positionInState reads a state's stream to its end.
func positionInState(r io.Reader) (Position, error) {
	var at Position
	err := readState(r, func(key, value []byte) error {
		if string(key) != appliedKey {
			return nil
		}
		var err error
		at, err = decodePosition(value)
		return err
	})
	return at, err
}

// snapshotReader reads a state's stream and checks the file at its end.
type snapshotReader struct {
	path string
	meta SnapshotMeta
	in   *snapshotInput
	z    *zstd.Decoder
	n    int64                // bytes of the stream
	err  error                // what every later read returns
	tell func(*SnapshotError) // of what is wrong with the file; nil = nobody
}

// snapshotInput counts and hashes what is read of the file.
type snapshotInput struct {
	file vfs.File
	sum  hash.Hash
	n    int64
}

func (in *snapshotInput) Read(p []byte) (int, error) {
	n, err := in.file.Read(p)
	in.sum.Write(p[:n])
	in.n += int64(n)
	return n, err
}

func openSnapshotFile(fs vfs.FS, path string, m SnapshotMeta) (*snapshotReader, error) {
	file, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return nil, &SnapshotError{path, err}
	}
	return newSnapshotReader(path, file, m)
}

// newSnapshotReader closes the file, at last or on error.
func newSnapshotReader(path string, file vfs.File, m SnapshotMeta) (*snapshotReader, error) {
	in := &snapshotInput{file: file, sum: sha256.New()}
	buffer := bufio.NewReaderSize(in, int(min(snapshotBufferBytes, m.FileBytes)))
	z, err := zstd.NewReader(buffer, zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(snapshotWindowBytes))
	if err != nil {
		return nil, errors.Join(&SnapshotError{path, err}, file.Close())
	}
	return &snapshotReader{path: path, meta: m, in: in, z: z}, nil
}

func (r *snapshotReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.z.Read(p)
	r.n += int64(n)
	switch {
	case err == io.EOF:
		err = r.end()
	case err == nil && r.n > r.meta.StateBytes:
		err = fmt.Errorf("its state has more than the %d bytes that its meta says", r.meta.StateBytes)
	}
	if err != nil && err != io.EOF {
		wrong := &SnapshotError{r.path, err}
		if err = wrong; r.tell != nil {
			r.tell(wrong)
		}
	}
	r.err = err
	return n, err
}

// end is io.EOF when the file is the one that was saved. The decoder has read it
// to its end by then, since another frame might follow.
func (r *snapshotReader) end() error {
	if r.in.n != r.meta.FileBytes {
		return fmt.Errorf("it has %d bytes, and its meta says %d", r.in.n, r.meta.FileBytes)
	}
	if sum := hex.EncodeToString(r.in.sum.Sum(nil)); sum != r.meta.SHA256 {
		return fmt.Errorf("its SHA-256 is %s, and its meta says %s", sum, r.meta.SHA256)
	}
	if r.n != r.meta.StateBytes {
		return fmt.Errorf("its state has %d bytes, and its meta says %d", r.n, r.meta.StateBytes)
	}
	return io.EOF
}

func (r *snapshotReader) Close() error {
	r.z.Close()
	return r.in.file.Close()
}
