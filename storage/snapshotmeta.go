package storage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// SnapshotMeta is what is known of a snapshot file. It is a line of JSON with
// its own checksum, beside the file.
type SnapshotMeta struct {
	Format      uint32 `json:"format"`
	Index       uint64 `json:"index"` // of the last entry in the state
	Term        uint64 `json:"term"`  // of that entry
	Incarnation string `json:"incarnation"`
	ClusterID   uint64 `json:"clusterId"`
	StateBytes  int64  `json:"stateBytes"` // of the state's stream
	FileBytes   int64  `json:"fileBytes"`  // of the file: the stream, compressed
	SHA256      string `json:"sha256"`     // of the file, in hexadecimal
	Created     int64  `json:"created"`    // Unix milliseconds
	// Configuration is the consensus' at Index, as it encodes that; "" when it
	// was not saved, and then the snapshot is for its own member alone.
	Configuration string `json:"configuration,omitempty"`
}

// Position is the last entry in the state.
func (m SnapshotMeta) Position() Position { return Position{m.Index, m.Term} }

const (
	// snapshotFormat is of a meta with a configuration, snapshotFormatAlone of
	// one without, as older versions write and read it.
	snapshotFormat      = 2
	snapshotFormatAlone = 1

	snapSuffix = ".snap"
	metaSuffix = ".meta"
	// metaBytesMax bounds a meta. It is checked before memory is taken.
	metaBytesMax = 64 << 10
)

// metaRecord is the file: the meta and the CRC32C of its JSON.
type metaRecord struct {
	Snapshot json.RawMessage `json:"snapshot"`
	CRC32C   uint32          `json:"crc32c"`
}

// SnapshotError says which file of a snapshot cannot be used. Nothing is
// repaired: an older snapshot and the log, or another member, have the state.
type SnapshotError struct {
	File string
	Err  error
}

func (e *SnapshotError) Error() string {
	return fmt.Sprintf("snapshot file %s cannot be used: %v; it is left as it is", e.File, e.Err)
}

func (e *SnapshotError) Unwrap() error { return e.Err }

// formatOf is the oldest format that can hold the meta.
func formatOf(m SnapshotMeta) uint32 {
	if m.Configuration == "" {
		return snapshotFormatAlone
	}
	return snapshotFormat
}

// Line is the meta as its file holds it, and as it goes to another member.
func (m SnapshotMeta) Line() ([]byte, error) { return encodeSnapshotMeta(m) }

// ParseSnapshotMeta reads what Line made, and nothing else.
func ParseSnapshotMeta(line []byte) (SnapshotMeta, error) {
	if len(line) > metaBytesMax {
		return SnapshotMeta{}, fmt.Errorf("a snapshot's meta of %d bytes, more than %d", len(line), metaBytesMax)
	}
	m, err := decodeSnapshotMeta(line)
	if err != nil {
		return SnapshotMeta{}, fmt.Errorf("a snapshot's meta: %w", err)
	}
	return m, nil
}

// newSnapshotMeta is of a state. Of about it takes what storage does not know.
func newSnapshotMeta(at Position, about SnapshotMeta) SnapshotMeta {
	m := SnapshotMeta{
		Index: at.Index, Term: at.Term, ClusterID: about.ClusterID, Incarnation: about.Incarnation,
		Created: about.Created, Configuration: about.Configuration,
	}
	m.Format = formatOf(m)
	return m
}

// encodeSnapshotMeta makes the line, and checks that it will be read as m.
func encodeSnapshotMeta(m SnapshotMeta) ([]byte, error) {
	line, err := metaLine(m)
	if err == nil {
		_, err = decodeSnapshotMeta(line)
	}
	if err == nil && len(line) > metaBytesMax {
		err = fmt.Errorf("it has %d bytes, more than %d", len(line), metaBytesMax)
	}
	if err != nil {
		return nil, fmt.Errorf("encode the meta: %w", err)
	}
	return line, nil
}

func metaLine(m SnapshotMeta) ([]byte, error) {
	inner, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	line, err := json.Marshal(metaRecord{inner, crc32.Checksum(inner, castagnoli)})
	return append(line, '\n'), err
}

// decodeSnapshotMeta takes nothing but what encodeSnapshotMeta makes. JSON can
// be spelled in many ways; a flipped bit must not be one of them.
func decodeSnapshotMeta(line []byte) (SnapshotMeta, error) {
	var r metaRecord
	var m SnapshotMeta
	if err := json.Unmarshal(line, &r); err != nil {
		return SnapshotMeta{}, err
	}
	if sum := crc32.Checksum(r.Snapshot, castagnoli); sum != r.CRC32C {
		return SnapshotMeta{}, fmt.Errorf("its checksum is %08x, not %08x", sum, r.CRC32C)
	}
	if err := json.Unmarshal(r.Snapshot, &m); err != nil {
		return SnapshotMeta{}, err
	}
	if m.Format < snapshotFormatAlone || m.Format > snapshotFormat {
		return SnapshotMeta{}, fmt.Errorf("it has format %d, and this version reads formats up to %d", m.Format, snapshotFormat)
	}
	if m.Format != formatOf(m) {
		return SnapshotMeta{}, fmt.Errorf("it has format %d and the configuration %q, which do not go together", m.Format, m.Configuration)
	}
	if same, err := metaLine(m); err != nil || !bytes.Equal(same, line) {
		return SnapshotMeta{}, errors.Join(errors.New("it is not spelled as it was written"), err)
	}
	return m, nil
}

// ReadSnapshotMeta reads and checks one meta file. One that has the name of
// another position was renamed, and is refused; other names say nothing.
func ReadSnapshotMeta(fs vfs.FS, path string) (SnapshotMeta, error) {
	m, err := readSnapshotMeta(fs, path)
	if at, ok := positionInName(fs.PathBase(path), metaSuffix); err == nil && ok && at != m.Position() {
		err = fmt.Errorf("it says index %d and term %d: the file was renamed", m.Index, m.Term)
	}
	if err != nil {
		return SnapshotMeta{}, &SnapshotError{path, err}
	}
	return m, nil
}

func readSnapshotMeta(fs vfs.FS, path string) (SnapshotMeta, error) {
	info, err := fs.Stat(path)
	if err != nil {
		return SnapshotMeta{}, err
	}
	if info.Size() > metaBytesMax {
		return SnapshotMeta{}, fmt.Errorf("it has %d bytes, more than a meta's %d", info.Size(), metaBytesMax)
	}
	line, _, err := readFile(fs, path)
	if err != nil {
		return SnapshotMeta{}, err
	}
	return decodeSnapshotMeta(line)
}

// snapshotName is the name of both files, without what tells them apart.
func snapshotName(at Position) string {
	return fmt.Sprintf("%020d-%020d", at.Term, at.Index)
}

// positionInName is the position in a file's name with this suffix.
func positionInName(name, suffix string) (Position, bool) {
	base, ok := strings.CutSuffix(name, suffix)
	term, index, _ := strings.Cut(base, "-")
	t, bad := strconv.ParseUint(term, 10, 64)
	i, worse := strconv.ParseUint(index, 10, 64)
	at := Position{i, t}
	return at, ok && bad == nil && worse == nil && snapshotName(at) == base
}
