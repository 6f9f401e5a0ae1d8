package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A backup is a snapshot in one file, to be copied, piped and put away as one:
//
//	"SMBACKUP"
//	the state, as a .snap file holds it
//	its meta, as a .meta file holds it
//	length of the meta (4 bytes, big-endian), "SMBACEND"
//
// The meta comes last because it says what the state's size and checksum have
// become: so a backup is written once, straight to where it goes, without a
// copy on the member's disk. What is cut short lacks its end and is no backup.
const (
	backupMagic    = "SMBACKUP"
	backupEndMagic = "SMBACEND"
	backupEndBytes = 4 + len(backupEndMagic)
	// backupTailMax is how many of the last bytes are enough to find the meta.
	backupTailMax = metaBytesMax + backupEndBytes
)

// Backup is what is in a backup.
type Backup struct {
	SnapshotMeta
	StateHash string // what EngineSnapshot.Hash said of the state
}

// WriteBackup writes a state, which the caller closes, with bounded memory. Of
// about it takes cluster, incarnation and time.
func WriteBackup(ctx context.Context, w io.Writer, state *EngineSnapshot, about SnapshotMeta) (SnapshotMeta, error) {
	at := state.Applied()
	m, err := writeBackup(ctx, w, state, newSnapshotMeta(at, about))
	if err != nil {
		return SnapshotMeta{}, fmt.Errorf("write a backup of the state at index %d: %w", at.Index, err)
	}
	return m, nil
}

func writeBackup(ctx context.Context, w io.Writer, state *EngineSnapshot, m SnapshotMeta) (SnapshotMeta, error) {
	if _, err := encodeSnapshotMeta(m); err != nil { // before anything is written
		return m, err
	}
	if _, err := io.WriteString(w, backupMagic); err != nil {
		return m, err
	}
	out := &hashWriter{w: w, sum: sha256.New()}
	var err error
	if m.StateBytes, err = compress(ctx, out, state); err != nil {
		return m, err
	}
	m.FileBytes, m.SHA256 = out.n, hex.EncodeToString(out.sum.Sum(nil))
	end, err := encodeSnapshotMeta(m)
	if err != nil {
		return m, err
	}
	end = binary.BigEndian.AppendUint32(end, uint32(len(end)))
	_, err = w.Write(append(end, backupEndMagic...))
	return m, err
}

// hashWriter counts and hashes what it writes.
type hashWriter struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

func (w *hashWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.sum.Write(p[:n])
	w.n += int64(n)
	return n, err
}

// OpenBackup opens the state's stream of a backup, for Engine.Restore. The last
// read verifies sizes and checksum: whoever stops before io.EOF has verified
// nothing. A .snap file out of a data directory is taken too, with the .meta
// file beside it.
func OpenBackup(fs vfs.FS, path string) (SnapshotMeta, io.ReadCloser, error) {
	if base, ok := strings.CutSuffix(path, snapSuffix); ok {
		return OpenSnapshotFile(fs, path, base+metaSuffix)
	}
	file, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return SnapshotMeta{}, nil, &SnapshotError{path, err}
	}
	m, err := readBackupMeta(file)
	if err != nil {
		return SnapshotMeta{}, nil, errors.Join(&SnapshotError{path, err}, file.Close())
	}
	inner := filePart{file, io.NewSectionReader(file, int64(len(backupMagic)), m.FileBytes)}
	r, err := newSnapshotReader(path, inner, m)
	if err != nil {
		return SnapshotMeta{}, nil, err
	}
	return m, r, nil
}

// filePart is a file of which only a part is read.
type filePart struct {
	vfs.File
	part *io.SectionReader
}

func (f filePart) Read(p []byte) (int, error) { return f.part.Read(p) }

// readBackupMeta checks all of the file but the state.
func readBackupMeta(file vfs.File) (SnapshotMeta, error) {
	info, err := file.Stat()
	if err != nil {
		return SnapshotMeta{}, err
	}
	size := info.Size()
	head := make([]byte, min(size, int64(len(backupMagic))))
	if _, err := file.ReadAt(head, 0); err != nil && err != io.EOF {
		return SnapshotMeta{}, err
	}
	if string(head) != backupMagic {
		return SnapshotMeta{}, notABackup(head)
	}
	tail := make([]byte, min(size-int64(len(backupMagic)), int64(backupTailMax)))
	if _, err := file.ReadAt(tail, size-int64(len(tail))); err != nil && err != io.EOF {
		return SnapshotMeta{}, err
	}
	m, _, err := backupEnd(tail, size-int64(len(backupMagic)))
	return m, err
}

func notABackup(head []byte) error {
	return fmt.Errorf("it begins with %q, not %q: it is no backup", head, backupMagic)
}

// backupEnd reads the meta from the last bytes of a backup and returns how many
// of them it takes with what follows it. size is that of all after the head.
func backupEnd(tail []byte, size int64) (SnapshotMeta, int, error) {
	rest, ok := bytes.CutSuffix(tail, []byte(backupEndMagic))
	if !ok || len(rest) < 4 {
		return SnapshotMeta{}, 0, errors.New("it does not end as a backup does: it was cut short, or written on")
	}
	length := binary.BigEndian.Uint32(rest[len(rest)-4:])
	rest = rest[:len(rest)-4]
	if uint64(length) > uint64(len(rest)) {
		return SnapshotMeta{}, 0, fmt.Errorf("its meta has %d bytes, more than there are", length)
	}
	m, err := decodeSnapshotMeta(rest[len(rest)-int(length):])
	if err != nil {
		return SnapshotMeta{}, 0, fmt.Errorf("its meta: %w", err)
	}
	end := int(length) + backupEndBytes
	if size-int64(end) != m.FileBytes {
		return SnapshotMeta{}, 0, fmt.Errorf("its state has %d bytes, and its meta says %d", size-int64(end), m.FileBytes)
	}
	return m, end, nil
}

// ReadBackup reads a backup to its end: sizes, checksums, and that the state is
// of the position that the meta says. Each pair of the state goes to fn, which
// may be nil and whose error ends the reading.
func ReadBackup(fs vfs.FS, path string, fn func(key, value []byte) error) (b Backup, err error) {
	m, r, err := OpenBackup(fs, path)
	if err != nil {
		return Backup{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var at Position
	var told error // by fn
	sum := sha256.New()
	err = readState(r, func(key, value []byte) error {
		head := pairHead(key, value)
		sum.Write(head[:])
		sum.Write(key)
		sum.Write(value)
		if string(key) == appliedKey {
			var err error
			if at, err = decodePosition(value); err != nil {
				return err
			}
		}
		if fn != nil {
			told = fn(key, value)
		}
		return told
	})
	var named *SnapshotError
	switch {
	case told != nil:
		return Backup{}, told
	case err == nil && at != m.Position():
		err = fmt.Errorf("its state is of index %d and term %d, and its meta says %d and %d", at.Index, at.Term, m.Index, m.Term)
	}
	if err != nil && !errors.As(err, &named) {
		err = &SnapshotError{path, err}
	}
	return Backup{m, hex.EncodeToString(sum.Sum(nil))}, err
}

// BackupCheck is a writer that checks a backup on its way, with bounded memory:
// that it is whole, and that the state has the checksum that the meta says.
type BackupCheck struct {
	begun  bool   // the head was there
	held   []byte // the last bytes, in which the meta is
	sum    hash.Hash
	hashed int64
	err    error
}

// Write never fails: what is wrong is End's to say.
func (c *BackupCheck) Write(p []byte) (int, error) {
	c.held = append(c.held, p...)
	if c.sum == nil {
		c.sum = sha256.New()
	}
	if !c.begun && len(c.held) >= len(backupMagic) {
		if head := c.held[:len(backupMagic)]; string(head) != backupMagic {
			c.err = notABackup(head)
		}
		c.begun, c.held = true, append([]byte(nil), c.held[len(backupMagic):]...)
	}
	if c.begun && len(c.held) >= 2*backupTailMax {
		c.pass(len(c.held) - backupTailMax)
	}
	return len(p), nil
}

// pass hashes the first of the held bytes and lets go of them.
func (c *BackupCheck) pass(n int) {
	c.sum.Write(c.held[:n])
	c.hashed += int64(n)
	c.held = append(c.held[:0], c.held[n:]...)
}

// End says what has passed.
func (c *BackupCheck) End() (SnapshotMeta, error) {
	if !c.begun {
		return SnapshotMeta{}, notABackup(c.held)
	}
	if c.err != nil {
		return SnapshotMeta{}, c.err
	}
	m, end, err := backupEnd(c.held, c.hashed+int64(len(c.held)))
	if err != nil {
		return SnapshotMeta{}, err
	}
	c.pass(len(c.held) - end)
	if sum := hex.EncodeToString(c.sum.Sum(nil)); sum != m.SHA256 {
		return SnapshotMeta{}, fmt.Errorf("its SHA-256 is %s, and its meta says %s", sum, m.SHA256)
	}
	return m, nil
}
