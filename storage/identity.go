package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Identity is who the member of a data directory is. A directory keeps its
// UUID for ever, and no other directory may act under the same node id: a
// voter that has forgotten its votes could vote twice.
type Identity struct {
	NodeID    uint64            `json:"nodeId"`
	ClusterID uint64            `json:"clusterId"`
	UUID      string            `json:"uuid"`
	Stage     string            `json:"stage"`            // StageFounding, StageJoining, StageReady or StageRestoring
	Joined    bool              `json:"joined,omitempty"` // it did not found the cluster
	Founders  string            `json:"founders"`         // digest of the cluster's first members
	Peers     map[uint64]string `json:"peers"`            // node id → UUID of every peer met so far
}

// Stages of an Identity.
const (
	StageFounding  = "founding" // the log and the state may be half made; nobody was spoken to
	StageJoining   = "joining"  // it asks to be taken in, and has no state yet; it has voted for nobody
	StageReady     = "ready"
	StageRestoring = "restoring" // a restore from a backup has begun and not ended
)

const (
	identityFile = "identity.json"
	lockFile     = "LOCK"
)

// dirFormat is the version of all that a data directory holds: what this
// version writes, and the newest that it reads.
const dirFormat = 1

// identityInDir is the identity with the directory's format.
type identityInDir struct {
	formatInDir
	Identity
}

// formatInDir is read before the rest, which a newer format may spell otherwise.
// Without a version the format is 1.
type formatInDir struct {
	FormatVersion uint32 `json:"formatVersion"`
}

// identityRecord is the file: the identity and the CRC32C of its JSON, so
// that a damaged file is not taken for another node.
type identityRecord struct {
	Identity json.RawMessage `json:"identity"`
	CRC32C   uint32          `json:"crc32c"`
}

// LoadIdentity reads the identity of a data directory; false when it has none.
func LoadIdentity(fs vfs.FS, dir string) (Identity, bool, error) {
	path := fs.PathJoin(dir, identityFile)
	data, ok, err := readFile(fs, path)
	if err != nil || !ok {
		return Identity{}, false, err
	}
	var r identityRecord
	var format formatInDir
	var id Identity
	if err := json.Unmarshal(data, &r); err != nil {
		return Identity{}, false, fmt.Errorf("%s is damaged: %w; without it this directory cannot be a member", path, err)
	}
	if sum := crc32.Checksum(r.Identity, castagnoli); sum != r.CRC32C {
		return Identity{}, false, fmt.Errorf("%s is damaged: its checksum is %08x, not %08x; without it this directory cannot be a member", path, sum, r.CRC32C)
	}
	if err := json.Unmarshal(r.Identity, &format); err != nil {
		return Identity{}, false, fmt.Errorf("%s: %w", path, err)
	}
	if format.FormatVersion > dirFormat {
		return Identity{}, false, fmt.Errorf("%s: the data directory has format %d, and this version reads formats up to %d: a newer version wrote it, start that one or a later one", path, format.FormatVersion, dirFormat)
	}
	if err := json.Unmarshal(r.Identity, &id); err != nil {
		return Identity{}, false, fmt.Errorf("%s: %w", path, err)
	}
	return id, true, nil
}

// SaveIdentity replaces the identity; it is durable when the call returns.
func SaveIdentity(fs vfs.FS, dir string, id Identity) error {
	inner, err := json.Marshal(identityInDir{formatInDir{dirFormat}, id})
	if err != nil {
		return fmt.Errorf("encode the identity: %w", err)
	}
	data, err := json.Marshal(identityRecord{inner, crc32.Checksum(inner, castagnoli)})
	if err != nil {
		return fmt.Errorf("encode the identity: %w", err)
	}
	return writeFileAtomic(fs, dir, identityFile, data)
}

// LockDir takes a data directory, made if need be, for this process until the
// closer is closed.
func LockDir(fs vfs.FS, dir string) (io.Closer, error) {
	if err := makeDir(fs, dir); err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	lock, err := fs.Lock(fs.PathJoin(dir, lockFile))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("data directory %s is in use by another process; a directory belongs to one", dir), err)
	}
	return lock, nil
}

// HasLogOrState tells whether a data directory holds more than nothing: a log
// or a state without an identity is a member that lost its name.
func HasLogOrState(fs vfs.FS, dir string) (bool, error) {
	for _, name := range []string{"wal", "state"} {
		if found, err := exists(fs, fs.PathJoin(dir, name)); found || err != nil {
			return found, err
		}
	}
	return false, nil
}
