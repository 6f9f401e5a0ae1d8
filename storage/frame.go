package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A segment is a header and frames. A frame is what one Append wrote, whole:
//
//	0   CRC32C of all that follows, padding included
//	4   length of the payload
//	8   salt of the segment
//	16  kind, then seven zero bytes
//	24  offset of this frame in the file
//	32  offset up to which the file was known to be synced
//	40  payload, padded with zeros to a multiple of 8
//
// Salt and own offset tell a frame from bytes that an earlier use of the disk
// left there; the synced offset tells a torn tail from damage: a hole below an
// offset that a later frame knows to be synced was not torn by a crash.
// Integers are little-endian. (A prototype compared this with other framings:
// both Pebble's record format and etcd's log take some damage for a tear.)
const (
	frameHeadBytes = 40
	frameAlign     = 8
	// frameBytesMax bounds a payload. It is checked before memory is taken.
	frameBytesMax = 8 << 20
)

type frameKind uint8

const (
	frameData frameKind = 1 // entries, a hard state, or both
	frameMark frameKind = 2 // nothing but the synced offset
	frameSeal frameKind = 3 // the last of a segment
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errBadFrame = errors.New("no valid frame")

// frame is one frame, read or to be written.
type frame struct {
	kind    frameKind
	salt    uint64
	offset  int64
	synced  int64
	payload []byte
}

func (f frame) size() int64 { return frameSize(len(f.payload)) }

func frameSize(payload int) int64 {
	return int64(frameHeadBytes + (payload+frameAlign-1)/frameAlign*frameAlign)
}

// appendTo encodes the frame.
func (f frame) appendTo(b []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.payload)))
	b = binary.LittleEndian.AppendUint64(b, f.salt)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.kind))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.offset))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.synced))
	b = append(b, f.payload...)
	b = append(b, make([]byte, f.size()-int64(frameHeadBytes+len(f.payload)))...)
	binary.LittleEndian.PutUint32(b[start:], crc32.Checksum(b[start+4:], castagnoli))
	return b
}

// payloadLength reads the length from a head, or errBadFrame when head cannot
// be of a frame of this segment at this offset.
func payloadLength(head []byte, salt uint64, offset int64) (int, error) {
	length := binary.LittleEndian.Uint32(head[4:])
	if binary.LittleEndian.Uint64(head[8:]) != salt || binary.LittleEndian.Uint64(head[24:]) != uint64(offset) || length > frameBytesMax {
		return 0, errBadFrame
	}
	return int(length), nil
}

// decodeFrame checks and decodes the frame that b begins with. The payload is
// a part of b.
func decodeFrame(b []byte, salt uint64, offset int64) (frame, error) {
	if len(b) < frameHeadBytes {
		return frame{}, errBadFrame
	}
	length, err := payloadLength(b, salt, offset)
	if err != nil {
		return frame{}, err
	}
	size := frameSize(length)
	if int64(len(b)) < size || crc32.Checksum(b[4:size], castagnoli) != binary.LittleEndian.Uint32(b) {
		return frame{}, errBadFrame
	}
	return frame{
		kind:    frameKind(b[16]),
		salt:    salt,
		offset:  offset,
		synced:  int64(binary.LittleEndian.Uint64(b[32:])),
		payload: b[frameHeadBytes : frameHeadBytes+length],
	}, nil
}

// record is the payload of a data frame.
type record struct {
	entries []Entry
	hard    *HardState
}

// Bits of a record's first byte.
const recordHasHardState = 1

func (r record) appendTo(b []byte) []byte {
	if r.hard == nil {
		b = append(b, 0)
	} else {
		b = append(b, recordHasHardState)
		b = binary.AppendUvarint(b, r.hard.Term)
		b = binary.AppendUvarint(b, r.hard.Vote)
		b = binary.AppendUvarint(b, r.hard.Commit)
	}
	b = binary.AppendUvarint(b, uint64(len(r.entries)))
	for _, e := range r.entries {
		b = binary.AppendUvarint(b, e.Index)
		b = binary.AppendUvarint(b, e.Term)
		b = append(b, byte(e.Kind))
		b = binary.AppendUvarint(b, uint64(len(e.Data)))
		b = append(b, e.Data...)
	}
	return b
}

// entryBytesMax is what an entry takes in a record beside its data, at most.
const entryBytesMax = 3*binary.MaxVarintLen64 + 1

// decodeRecord decodes a payload whose checksum was right, so an error is
// damage or a newer format. Entry data are copies.
func decodeRecord(b []byte) (record, error) {
	in := recordReader{b: b}
	var r record
	if flags := in.byte(); flags == recordHasHardState {
		r.hard = &HardState{Term: in.uvarint(), Vote: in.uvarint(), Commit: in.uvarint()}
	} else if flags != 0 {
		return record{}, fmt.Errorf("a record with flags %#x, which this version does not know", flags)
	}
	count := in.uvarint()
	if count > uint64(len(b)) {
		return record{}, fmt.Errorf("a record of %d bytes with %d entries", len(b), count)
	}
	r.entries = make([]Entry, 0, count)
	for range count {
		e := Entry{Index: in.uvarint(), Term: in.uvarint(), Kind: EntryKind(in.byte())}
		e.Data = in.bytes()
		r.entries = append(r.entries, e)
	}
	if in.short || len(in.b) != 0 {
		return record{}, fmt.Errorf("a record of %d bytes that does not end where it should", len(b))
	}
	return r, nil
}

// recordReader reads a payload and remembers when it was too short.
type recordReader struct {
	b     []byte
	short bool
}

func (in *recordReader) byte() byte {
	if len(in.b) == 0 {
		in.short = true
		return 0
	}
	c := in.b[0]
	in.b = in.b[1:]
	return c
}

func (in *recordReader) uvarint() uint64 {
	v, n := binary.Uvarint(in.b)
	if n <= 0 {
		in.short, in.b = true, nil
		return 0
	}
	in.b = in.b[n:]
	return v
}

func (in *recordReader) bytes() []byte {
	n := in.uvarint()
	if n > uint64(len(in.b)) {
		in.short, in.b = true, nil
		return nil
	}
	p := append([]byte(nil), in.b[:n]...)
	in.b = in.b[n:]
	return p
}
