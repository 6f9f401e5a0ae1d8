package storage

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A segment's header:
//
//	0   "SMLOG001", or "SMLOG00R" when the log begins anew with it
//	8   salt
//	16  sequence number, as in the name
//	24  first index: the last of the segment before + 1
//	32  term of the entry before the first
//	40  CRC32C of all before, then four zero bytes
const (
	segmentMagic     = "SMLOG001"
	resetMagic       = "SMLOG00R"
	segmentHeadBytes = 48
	segmentSuffix    = ".wal"
)

type segmentHead struct {
	salt     uint64
	sequence uint64
	before   Position // the entry before the first
	reset    bool     // the log begins anew: segments before it are no part of it
}

func (h segmentHead) encode() []byte {
	magic := segmentMagic
	if h.reset {
		magic = resetMagic
	}
	b := append(make([]byte, 0, segmentHeadBytes), magic...)
	b = binary.LittleEndian.AppendUint64(b, h.salt)
	b = binary.LittleEndian.AppendUint64(b, h.sequence)
	b = binary.LittleEndian.AppendUint64(b, h.before.Index+1)
	b = binary.LittleEndian.AppendUint64(b, h.before.Term)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(b, 0, 0, 0, 0)
}

func decodeSegmentHead(b []byte, sequence uint64) (segmentHead, error) {
	if len(b) < segmentHeadBytes {
		return segmentHead{}, fmt.Errorf("%d bytes are too few for a header", len(b))
	}
	magic := string(b[:8])
	if magic != segmentMagic && magic != resetMagic {
		return segmentHead{}, fmt.Errorf("it begins with %q, not %q", magic, segmentMagic)
	}
	if crc32.Checksum(b[:40], castagnoli) != binary.LittleEndian.Uint32(b[40:]) || binary.LittleEndian.Uint32(b[44:]) != 0 {
		return segmentHead{}, errors.New("the header's checksum is wrong")
	}
	h := segmentHead{salt: binary.LittleEndian.Uint64(b[8:]), sequence: binary.LittleEndian.Uint64(b[16:])}
	h.reset = magic == resetMagic
	h.before = Position{binary.LittleEndian.Uint64(b[24:]) - 1, binary.LittleEndian.Uint64(b[32:])}
	if h.sequence != sequence {
		return segmentHead{}, fmt.Errorf("the header says segment %d: the file was renamed", h.sequence)
	}
	return h, nil
}

func segmentName(sequence uint64) string {
	return fmt.Sprintf("%016d%s", sequence, segmentSuffix)
}

// segmentSequence is the number in a segment's name.
func segmentSequence(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, ok && err == nil && segmentName(n) == name
}

// segment is a segment that is open for appending.
type segment struct {
	head   segmentHead
	file   vfs.File
	size   int64 // bytes written
	synced int64 // bytes known to be on disk
	buf    []byte
}

// createSegment writes a segment with its first frames under a temporary name,
// makes it durable and gives it its name. An existing one is replaced.
func createSegment(fs vfs.FS, dir string, head segmentHead, fill func(*segment) error) (*segment, error) {
	name := fs.PathJoin(dir, segmentName(head.sequence))
	file, err := fs.Create(name+tempSuffix, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("create segment %s: %w", name, err)
	}
	s := &segment{head: head, file: file}
	err = s.write(head.encode())
	if err == nil {
		err = fill(s)
	}
	if err == nil {
		err = unless("skip_segment_sync", s.sync)
	}
	if err == nil {
		err = fs.Rename(name+tempSuffix, name)
	}
	if err == nil {
		err = unless("skip_segment_dir_sync", func() error { return syncDir(fs, dir) })
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create segment %s: %w", name, err), file.Close())
	}
	return s, nil
}

// add writes one frame.
func (s *segment) add(kind frameKind, payload []byte) error {
	f := frame{kind: kind, salt: s.head.salt, offset: s.size, synced: s.synced, payload: payload}
	s.buf = f.appendTo(s.buf[:0])
	return s.write(s.buf)
}

func (s *segment) write(b []byte) error {
	n, err := s.file.Write(b)
	s.size += int64(n)
	return err
}

func (s *segment) sync() error {
	if err := s.file.SyncData(); err != nil {
		return err
	}
	s.synced = s.size
	return nil
}

// segmentReader reads a segment's frames in order.
type segmentReader struct {
	file   vfs.File
	in     *bufio.Reader
	head   segmentHead
	size   int64 // of the file
	offset int64 // of the next frame
	buf    []byte
}

// readBufferBytes is what a reader asks the file for at a time.
const readBufferBytes = 256 << 10

// openSegment reads the header. The caller closes the reader.
func openSegment(fs vfs.FS, dir string, sequence uint64) (*segmentReader, error) {
	file, err := fs.Open(fs.PathJoin(dir, segmentName(sequence)))
	if err != nil {
		return nil, err
	}
	r := &segmentReader{file: file}
	if err := r.start(sequence); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return r, nil
}

func (r *segmentReader) start(sequence uint64) error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	r.size = info.Size()
	b := make([]byte, segmentHeadBytes)
	if n, err := r.file.ReadAt(b, 0); err != nil && err != io.EOF {
		return err
	} else if r.head, err = decodeSegmentHead(b[:n], sequence); err != nil {
		return &DamageError{Segment: segmentName(sequence), Reason: err.Error()}
	}
	r.seek(segmentHeadBytes)
	return nil
}

// seek makes offset the next frame's.
func (r *segmentReader) seek(offset int64) {
	r.offset = offset
	bytes := max(0, min(readBufferBytes, r.size-offset))
	r.in = bufio.NewReaderSize(io.NewSectionReader(r.file, offset, math.MaxInt64-offset), int(bytes))
}

// next reads one frame: io.EOF at the end of the file, errBadFrame where no
// valid frame is. The payload is valid until the next call.
func (r *segmentReader) next() (frame, error) {
	if r.offset == r.size {
		return frame{}, io.EOF
	}
	r.buf = grow(r.buf, frameHeadBytes)
	if err := r.fill(r.buf); err != nil {
		return frame{}, err
	}
	length, err := payloadLength(r.buf, r.head.salt, r.offset)
	if err != nil {
		return frame{}, err
	}
	if r.offset+frameSize(length) > r.size {
		return frame{}, errBadFrame
	}
	r.buf = grow(r.buf, int(frameSize(length)))
	if err := r.fill(r.buf[frameHeadBytes:]); err != nil {
		return frame{}, err
	}
	f, err := decodeFrame(r.buf, r.head.salt, r.offset)
	if err == nil {
		r.offset += f.size()
	}
	return f, err
}

// fill reads exactly p; a file that ends first has no valid frame here.
func (r *segmentReader) fill(p []byte) error {
	_, err := io.ReadFull(r.in, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errBadFrame
	}
	return err
}

// grow makes b n bytes long and keeps what it holds.
func grow(b []byte, n int) []byte {
	if cap(b) >= n {
		return b[:n]
	}
	return append(b[:len(b):len(b)], make([]byte, n-len(b))...)
}

// syncedBeyond looks behind a hole for a valid frame that knows more than the
// hole to be synced: what was synced was not torn by a crash.
func (r *segmentReader) syncedBeyond(hole int64) (int64, bool, error) {
	rest := make([]byte, r.size-hole)
	if _, err := r.file.ReadAt(rest, hole); err != nil && err != io.EOF {
		return 0, false, err
	}
	for at := int64(frameAlign); at+frameHeadBytes <= int64(len(rest)); at += frameAlign {
		if f, err := decodeFrame(rest[at:], r.head.salt, hole+at); err == nil && f.synced > hole {
			return f.offset, true, nil
		}
	}
	return 0, false, nil
}

func (r *segmentReader) close() error { return r.file.Close() }
