package consensus

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	pb "go.etcd.io/raft/v3/raftpb"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	"github.com/stellmap/stellmap/storage"
)

// A restored cluster is a new one that has an old one's state. Its history is
// another, so nothing may take the two for one:
//
//   - The members are those of the configuration, each with a new UUID. The old
//     address book is gone.
//   - The incarnation is new, and stands in every version, cursor and handshake.
//   - The log begins at the next multiple of 2^40 above the old state's index.
//     The old cluster went on after the backup; what it gave out as revisions
//     then is never given out again.
//   - Remembered request ids are gone: what was asked of the old cluster was not
//     done by this one.
//
// Several members of one new cluster are restored each by itself, from the same
// file: the first makes the incarnation, the others are told it. Half of it says
// what it was made of, so that two files cannot become one cluster.

// Restoration is what Restore works with.
type Restoration struct {
	Founding     // of the new cluster
	IdentityFile IdentityFile
	Incarnation  string        // of a cluster that another member was restored into; "" = a new one
	Random       func() uint64 // nil = crypto/rand

	Backup     storage.SnapshotMeta // what the state is
	State      io.Reader            // as Engine.Restore takes it
	OpenEngine func() (*storage.Engine, error)
	OpenLog    func(base storage.Position) (*storage.Log, error)
}

// Restored is what Restore has made.
type Restored struct {
	Base        storage.Position // the entry before the first of the new log
	Incarnation string
	UUID        string // of the data directory
	Members     int    // lines of the old address book that were dropped
	Requests    int    // remembered requests that were dropped
}

const (
	// restoreStep is what the base of a restored log is a multiple of.
	restoreStep = 1 << 40
	// revisionMax is the first index that a float64, and so a JSON reader, may not hold.
	revisionMax = 1 << 53
	// incarnationHalf is the digits of each half of a restored cluster's incarnation.
	incarnationHalf = 16
)

// Restore makes a data directory, in which there is nothing yet, a member of a
// new cluster that begins with an old one's state. If it ends before its end the
// directory is not a member, and is refused by Found.
func Restore(r Restoration) (Restored, error) {
	if err := r.check(); err != nil {
		return Restored{}, err
	}
	out := Restored{Base: baseAfter(r.Backup.Position())}
	if out.Base.Index >= revisionMax {
		return Restored{}, fmt.Errorf("the state is at index %d, and a log that begins after it would reach 2^53, beyond which not every program reads whole numbers", r.Backup.Index)
	}
	var err error
	if out.Incarnation, err = r.incarnation(); err != nil {
		return Restored{}, err
	}
	id, err := r.mark(out.Incarnation)
	if err != nil {
		return Restored{}, err
	}
	out.UUID = id.UUID
	if err := r.makeState(&out); err != nil {
		return Restored{}, fmt.Errorf("make the state: %w", err)
	}
	if err := r.makeLog(out.Base); err != nil {
		return Restored{}, fmt.Errorf("make the log: %w", err)
	}
	id.Stage = storage.StageReady
	if err := r.IdentityFile.Save(id); err != nil {
		return Restored{}, fmt.Errorf("save the identity: %w", err)
	}
	return out, nil
}

// baseAfter is the entry before the first of a log that goes on after a state.
func baseAfter(at storage.Position) storage.Position {
	return storage.Position{Index: (at.Index/restoreStep + 1) * restoreStep, Term: max(at.Term, Base().Term)}
}

// mark says in the directory that a restore has begun.
func (r *Restoration) mark(incarnation string) (storage.Identity, error) {
	_, found, err := r.IdentityFile.Load()
	if err != nil {
		return storage.Identity{}, fmt.Errorf("load the identity: %w", err)
	}
	occupied, err := r.IdentityFile.Occupied()
	if err != nil {
		return storage.Identity{}, fmt.Errorf("look for a log: %w", err)
	}
	if found || occupied {
		return storage.Identity{}, errors.New("the data directory is a member's already: restore into an empty one")
	}
	return r.beginAs(r.IdentityFile, storage.StageRestoring, restoredAs(r.digest(), incarnation))
}

// incarnation is the new one, or the given one if it was made of the same.
func (r *Restoration) incarnation() (string, error) {
	sum := sha256.New()
	sum.Write([]byte(r.Backup.SHA256))
	sum.Write(binary.BigEndian.AppendUint64(nil, r.Backup.Index))
	sum.Write([]byte(r.digest()))
	made := hex.EncodeToString(sum.Sum(nil))[:incarnationHalf]
	if r.Incarnation == "" {
		random := r.Random
		if random == nil {
			random = randomNumber
		}
		return hex.EncodeToString(binary.BigEndian.AppendUint64(nil, random())) + made, nil
	}
	if len(r.Incarnation) != 2*incarnationHalf || r.Incarnation[incarnationHalf:] != made {
		return "", fmt.Errorf("incarnation %q was not made by restoring this file into cluster %d with the members %v: all members must be restored from the same file, with the same list of members",
			r.Incarnation, r.ClusterID, memberIDs(r.Members))
	}
	return r.Incarnation, nil
}

func (r *Restoration) makeState(out *Restored) (err error) {
	e, err := r.OpenEngine()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := e.Restore(r.State); err != nil {
		return err
	}
	if at := e.AppliedIndex(); at != r.Backup.Position() {
		return fmt.Errorf("it is of index %d and term %d, and the backup says %d and %d", at.Index, at.Term, r.Backup.Index, r.Backup.Term)
	}
	b := e.NewBatch()
	if err := r.renew(e, b, out); err != nil {
		return errors.Join(err, b.Close())
	}
	if err := e.Apply(b, out.Base); err != nil {
		return err
	}
	return e.Flush()
}

// renew puts into the batch what makes the state a new cluster's.
func (r *Restoration) renew(e *storage.Engine, b *storage.Batch, out *Restored) error {
	f, err := loadFacts(e)
	if err != nil {
		return fmt.Errorf("read the facts about the cluster: %w", err)
	}
	if f.featureLevel > FeatureLevel {
		return fmt.Errorf("the cluster worked at feature level %d, this version knows up to %d: %w", f.featureLevel, FeatureLevel, errNotUnderstood)
	}
	prefix := []byte(storage.MetaPrefix)
	err = e.Scan(prefix, storage.PrefixEnd(prefix), func(key, _ []byte) error {
		k, ok := kindOfKey(key)
		if !ok {
			return fmt.Errorf("it has the key %q, of which this version does not know whether it holds in a new cluster: restore with the version that made the backup, or a later one", key)
		}
		if k.restore == restoreDrops {
			b.Delete(key)
		}
		switch k.key {
		case memberPrefix:
			out.Members++
		case requestPrefix:
			out.Requests++
		}
		return nil
	})
	if err != nil {
		return err
	}
	fresh := &facts{}
	fresh.setConf(b, &pb.ConfState{Voters: memberIDs(r.Members)})
	fresh.setCluster(b, &peerv1.Cluster{Incarnation: out.Incarnation, FeatureLevel: max(f.featureLevel, 1)})
	return nil
}

// makeLog begins the log in the term of the entry before its first, so that no
// term comes again.
func (r *Restoration) makeLog(base storage.Position) (err error) {
	l, err := r.OpenLog(base)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return l.Append(nil, &storage.HardState{Term: base.Term, Commit: base.Index}) // Close syncs
}
