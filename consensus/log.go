package consensus

import (
	"errors"
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/stellmap/stellmap/storage"
)

// raftLog shows a storage.Log to Raft. Raft reads it while the append executor
// writes; it asks only for what it was told is written.
type raftLog struct {
	log       *storage.Log
	hardState *pb.HardState
	conf      *pb.ConfState
	offer     func() (*pb.Snapshot, error) // what a follower is sent
}

// newRaftLog reads where to begin. The applied index is committed whatever the
// last hard state says, since one that only moves the commit index is not synced.
func newRaftLog(log *storage.Log, conf *pb.ConfState, applied uint64) *raftLog {
	hs := log.Load().HardState
	hs.Term = max(hs.Term, Base().Term)
	hs.Commit = max(hs.Commit, applied)
	return &raftLog{log: log, conf: conf, hardState: &pb.HardState{Term: &hs.Term, Vote: &hs.Vote, Commit: &hs.Commit}}
}

func (l *raftLog) InitialState() (*pb.HardState, *pb.ConfState, error) {
	return l.hardState, l.conf, nil
}

func (l *raftLog) Entries(lo, hi, maxSize uint64) ([]*pb.Entry, error) {
	stored, err := l.log.Entries(lo, hi, maxSize)
	if err != nil {
		return nil, asRaft(err)
	}
	entries := make([]*pb.Entry, len(stored))
	for i := range stored {
		entries[i] = entryFromLog(&stored[i])
	}
	return entries, nil
}

func (l *raftLog) Term(i uint64) (uint64, error) {
	term, err := l.log.Term(i)
	return term, asRaft(err)
}

func (l *raftLog) LastIndex() (uint64, error)  { return l.log.LastIndex(), nil }
func (l *raftLog) FirstIndex() (uint64, error) { return l.log.FirstIndex(), nil }

// Snapshot is asked for when a follower needs entries that were cut.
func (l *raftLog) Snapshot() (*pb.Snapshot, error) { return l.offer() }

func asRaft(err error) error {
	switch {
	case errors.Is(err, storage.ErrCompacted):
		return raft.ErrCompacted
	case errors.Is(err, storage.ErrUnavailable):
		return raft.ErrUnavailable
	}
	return err
}

func entryFromLog(e *storage.Entry) *pb.Entry {
	return &pb.Entry{Index: &e.Index, Term: &e.Term, Type: pb.EntryType(e.Kind).Enum(), Data: e.Data}
}

func entryForLog(e *pb.Entry) storage.Entry {
	return storage.Entry{Index: e.GetIndex(), Term: e.GetTerm(), Kind: storage.EntryKind(e.GetType()), Data: e.GetData()}
}

// raftLogger passes Raft's messages on. What it calls information is of every
// vote and probe, so it is shown on request only.
type raftLogger struct{ log *slog.Logger }

func (l raftLogger) Debug(v ...any)              { l.log.Debug("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Debugf(f string, v ...any)   { l.log.Debug("raft: " + fmt.Sprintf(f, v...)) }
func (l raftLogger) Info(v ...any)               { l.log.Debug("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Infof(f string, v ...any)    { l.log.Debug("raft: " + fmt.Sprintf(f, v...)) }
func (l raftLogger) Warning(v ...any)            { l.log.Warn("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Warningf(f string, v ...any) { l.log.Warn("raft: " + fmt.Sprintf(f, v...)) }
func (l raftLogger) Error(v ...any)              { l.log.Error("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Errorf(f string, v ...any)   { l.log.Error("raft: " + fmt.Sprintf(f, v...)) }
func (l raftLogger) Fatal(v ...any)              { panic("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(f string, v ...any)   { panic("raft: " + fmt.Sprintf(f, v...)) }
func (l raftLogger) Panic(v ...any)              { panic("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Panicf(f string, v ...any)   { panic("raft: " + fmt.Sprintf(f, v...)) }
