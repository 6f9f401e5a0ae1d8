package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// snapshotsKeptDefault is how many snapshots are kept: when the newest proves
// damaged, the one before it and the log have the state.
const snapshotsKeptDefault = 2

// ErrNoSnapshot is returned when no snapshot is kept that is intact.
var ErrNoSnapshot = errors.New("storage: no intact snapshot is kept")

// ErrNoRoom is returned by Save when the disk is too full. Nothing of the
// snapshot is left then, and a later Save may find room.
var ErrNoRoom = errors.New("storage: the disk has no room for a snapshot")

// SnapshotsOptions says where the snapshots are and how many.
type SnapshotsOptions struct {
	FS     vfs.FS
	Dir    string       // "snapshot" in the data directory
	Keep   int          // the newest so many; default 2; a crash may leave more until the next is saved
	Logger *slog.Logger // nil: no messages
}

// Snapshots are the states that a member has kept in files, two for each:
//
//	{term}-{index}.snap   the state
//	{term}-{index}.meta   what the state is, and size and checksum of the file
//
// The numbers have 20 digits. A snapshot is made under a temporary name, synced
// and renamed, then its meta the same way: with the meta it is there. What has
// no meta is left over from a crash. When the next is there, what is too old
// loses its meta, durably, and then its state.
//
// A file that is not what was saved is told of, not listed, and left as it is,
// until the same state is saved anew. Opening looks at metas and sizes; that
// the states are intact is known to whoever has read one to its end.
//
// Save is one goroutine's; the others are anybody's, at the same time. The
// first error of the disk in Save, or in what Receive began, is final: every
// later one returns it too. To be stopped by its context is no such error, and
// neither is ErrNoRoom.
type Snapshots struct {
	o SnapshotsOptions

	saving sync.Mutex // held by Save, and by it alone

	changing sync.Mutex // held while snapshots come and go

	mu      sync.Mutex     // guards what follows
	broken  error          // ended the saving and receiving
	list    []SnapshotMeta // newest first
	damaged []damagedSnapshot
}

type damagedSnapshot struct {
	at  Position // in the names
	err *SnapshotError
}

// OpenSnapshots looks at what is kept. What a crash left half made or half
// removed is removed.
func OpenSnapshots(o SnapshotsOptions) (*Snapshots, error) {
	o.Keep = cmp.Or(o.Keep, snapshotsKeptDefault)
	if o.Keep < 0 {
		return nil, fmt.Errorf("open the snapshots in %s: keep %d of them; one is the least", o.Dir, o.Keep)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Snapshots{o: o}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open the snapshots in %s: %w", o.Dir, err)
	}
	return s, nil
}

func (s *Snapshots) open() error {
	if err := makeDir(s.o.FS, s.o.Dir); err != nil {
		return err
	}
	names, err := s.o.FS.List(s.o.Dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if at, ok := positionInName(name, metaSuffix); ok {
			s.load(at)
		} else if isLeftover(name, names) {
			s.o.Logger.Warn("a snapshot that has no meta is removed: a crash came between, or the meta was removed", "file", s.path(name))
			if err := s.o.FS.Remove(s.path(name)); err != nil {
				return fmt.Errorf("remove a leftover: %w", err)
			}
		}
	}
	s.sort()
	// The log will be cut to what is listed: it must not be listed for its
	// name in memory alone, after a sync that failed in an earlier process.
	return syncDir(s.o.FS, s.o.Dir)
}

// isLeftover tells whether a file is a temporary one, or a state without meta.
func isLeftover(name string, names []string) bool {
	whole, temporary := strings.CutSuffix(name, tempSuffix)
	at, isState := positionInName(whole, snapSuffix)
	_, isMeta := positionInName(whole, metaSuffix)
	if _, isReceived := positionInName(whole, receivedSuffix); temporary {
		return isState || isMeta || isReceived
	}
	_, found := slices.BinarySearch(names, snapshotName(at)+metaSuffix)
	return isState && !found
}

// load lists the snapshot whose meta is there, or says what is wrong with it.
func (s *Snapshots) load(at Position) {
	m, err := ReadSnapshotMeta(s.o.FS, s.metaPath(at))
	if err == nil {
		err = s.checkSize(m)
	}
	var wrong *SnapshotError
	if errors.As(err, &wrong) {
		s.damaged = append(s.damaged, damagedSnapshot{at, wrong})
		s.warn(wrong)
		return
	}
	s.list = append(s.list, m)
}

func (s *Snapshots) checkSize(m SnapshotMeta) error {
	path := s.snapPath(m.Position())
	info, err := s.o.FS.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("it is missing, though its meta is there: %w", err)
	}
	if err == nil && info.Size() != m.FileBytes {
		err = fmt.Errorf("it has %d bytes, and its meta says %d", info.Size(), m.FileBytes)
	}
	if err != nil {
		return &SnapshotError{path, err}
	}
	return nil
}

func (s *Snapshots) warn(wrong *SnapshotError) {
	s.o.Logger.Warn("a snapshot cannot be used; an older one and the log, or another member, must have what it had", "error", wrong)
}

func (s *Snapshots) path(name string) string { return s.o.FS.PathJoin(s.o.Dir, name) }

func (s *Snapshots) snapPath(at Position) string { return s.path(snapshotName(at) + snapSuffix) }

func (s *Snapshots) metaPath(at Position) string { return s.path(snapshotName(at) + metaSuffix) }

// sort puts the newest first.
func (s *Snapshots) sort() {
	slices.SortFunc(s.list, func(a, b SnapshotMeta) int {
		return cmp.Or(cmp.Compare(b.Index, a.Index), cmp.Compare(b.Term, a.Term))
	})
}

// List is what is kept and not known to be damaged, the newest first.
func (s *Snapshots) List() []SnapshotMeta {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// Oldest is the index of the oldest of List. The log may go up to there: what
// follows it, and the snapshot, make the state.
func (s *Snapshots) Oldest() (index uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return 0, false
	}
	return s.list[len(s.list)-1].Index, true
}

// Damaged is what was found to be wrong since the opening, and is still there.
func (s *Snapshots) Damaged() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []error
	for _, d := range s.damaged {
		all = append(all, d.err)
	}
	return all
}

// Newest is the newest snapshot that is intact: each is read to its end, from
// the newest on, until one is. The list is what Damaged says then. Whether an
// intact one is as new as it should be, the log knows: it begins after it.
func (s *Snapshots) Newest(ctx context.Context) (SnapshotMeta, []error, error) {
	return s.newestOf(ctx, everySnapshot)
}

// newestOf is Newest among some of them.
func (s *Snapshots) newestOf(ctx context.Context, usable whichSnapshots) (SnapshotMeta, []error, error) {
	for {
		// Anew each time, since Save may be at work, and what is damaged leaves the list.
		kept := slices.DeleteFunc(s.List(), func(m SnapshotMeta) bool { return !usable(m.Position()) })
		if len(kept) == 0 {
			return SnapshotMeta{}, s.Damaged(), fmt.Errorf("%w in %s", ErrNoSnapshot, s.o.Dir)
		}
		err := s.verify(ctx, kept[0])
		if err == nil || ctx.Err() != nil {
			return kept[0], s.Damaged(), err
		}
	}
}

// whichSnapshots tells those that may be used from others.
type whichSnapshots func(Position) bool

func everySnapshot(Position) bool { return true }

// Find is the snapshot of a position, if it is kept and not known to be damaged.
func (s *Snapshots) Find(at Position) (SnapshotMeta, bool) {
	for _, m := range s.List() {
		if m.Position() == at {
			return m, true
		}
	}
	return SnapshotMeta{}, false
}

// SnapshotFile is a snapshot's file, as it is sent to another member.
type SnapshotFile interface {
	io.ReaderAt
	io.Closer
}

// OpenFile opens the file as it is: m has its size and checksum. It can be read
// to its end also when the snapshot is removed meanwhile.
func (s *Snapshots) OpenFile(m SnapshotMeta) (SnapshotFile, error) {
	path := s.snapPath(m.Position())
	file, err := s.o.FS.Open(path)
	if err != nil {
		return nil, s.report(m, &SnapshotError{path, err})
	}
	return file, nil
}

// Open opens the state's stream, for Engine.Restore. The last read verifies
// sizes and checksum: whoever stops before io.EOF has verified nothing.
func (s *Snapshots) Open(m SnapshotMeta) (io.ReadCloser, error) {
	r, err := openSnapshotFile(s.o.FS, s.snapPath(m.Position()), m)
	if err != nil {
		return nil, s.report(m, err)
	}
	r.tell = func(wrong *SnapshotError) { s.setAside(m, wrong) }
	return r, nil
}

// Verify reads both files to their end. What is damaged is listed no more.
func (s *Snapshots) Verify(m SnapshotMeta) error { return s.verify(context.Background(), m) }

func (s *Snapshots) verify(ctx context.Context, m SnapshotMeta) error {
	path := s.metaPath(m.Position())
	found, err := verifySnapshotFile(ctx, s.o.FS, s.snapPath(m.Position()), path)
	if err == nil && found != m {
		err = &SnapshotError{path, errors.New("it was exchanged for another's since it was listed")}
	}
	return s.report(m, err)
}

// report passes an error on, and sets aside what it is about.
func (s *Snapshots) report(m SnapshotMeta, err error) error {
	var wrong *SnapshotError
	if errors.As(err, &wrong) {
		s.setAside(m, wrong)
	}
	return err
}

// setAside takes a damaged snapshot from the list. One that is not in it was
// removed or set aside meanwhile.
func (s *Snapshots) setAside(m SnapshotMeta, wrong *SnapshotError) {
	s.mu.Lock()
	i := slices.Index(s.list, m)
	if i >= 0 {
		s.list = slices.Delete(s.list, i, i+1)
		s.damaged = append(s.damaged, damagedSnapshot{m.Position(), wrong})
	}
	s.mu.Unlock()
	if i >= 0 {
		s.warn(wrong)
	}
}

// Save keeps a state, which the caller closes. Of about it takes cluster,
// incarnation and time. It returns when the snapshot is durable and those that
// are too old are removed.
//
// A state that is saved already, in a snapshot of this index or a later one
// (after a crash the log is applied again), is not saved again: that snapshot
// is returned once it was read and is intact.
func (s *Snapshots) Save(ctx context.Context, state *EngineSnapshot, about SnapshotMeta) (SnapshotMeta, error) {
	if !s.saving.TryLock() {
		panic("storage: two snapshots are saved at once")
	}
	defer s.saving.Unlock()
	if err := s.failed(); err != nil {
		return SnapshotMeta{}, err
	}
	if mutant("snapshot_at_wrong_index") && state.at.Index > 1 {
		state = &EngineSnapshot{state.db, state.s, Position{Index: state.at.Index - 1, Term: state.at.Term}}
	}
	at := state.Applied()
	m := newSnapshotMeta(at, about)
	_, err := encodeSnapshotMeta(m) // before anything is written: a text may be none that JSON can hold
	var found SnapshotMeta
	var ok bool
	if err == nil {
		found, ok, err = s.saved(ctx, m)
	}
	if err == nil && !ok {
		found, err = s.save(ctx, state, m)
	}
	if err != nil {
		return SnapshotMeta{}, fmt.Errorf("save the state at index %d as %s: %w", m.Index, s.snapPath(at), err)
	}
	return found, nil
}

// saved finds an intact snapshot that is not older.
func (s *Snapshots) saved(ctx context.Context, m SnapshotMeta) (SnapshotMeta, bool, error) {
	for _, kept := range slices.Backward(s.List()) {
		if kept.Index < m.Index {
			continue
		}
		err := s.verify(ctx, kept)
		if err == nil {
			return kept, true, sameHistory(kept, m)
		}
		if ctx.Err() != nil {
			return SnapshotMeta{}, false, err
		}
	}
	return SnapshotMeta{}, false, nil
}

// sameHistory refuses what cannot be before or at a kept snapshot.
func sameHistory(kept, m SnapshotMeta) error {
	switch {
	case kept.ClusterID != m.ClusterID:
	case kept.Term < m.Term:
	case kept.Index == m.Index && (kept.Term != m.Term || kept.Incarnation != m.Incarnation):
	default:
		return nil
	}
	return fmt.Errorf("index %d of term %d, incarnation %q, of cluster %d is saved, and this is index %d of term %d, incarnation %q, of cluster %d: they are two histories. Is this another member's data directory?",
		kept.Index, kept.Term, kept.Incarnation, kept.ClusterID, m.Index, m.Term, m.Incarnation, m.ClusterID)
}

// save writes a new snapshot and removes the old ones.
func (s *Snapshots) save(ctx context.Context, state *EngineSnapshot, m SnapshotMeta) (SnapshotMeta, error) {
	temp := s.snapPath(m.Position()) + tempSuffix
	m, err := writeSnapshotFile(ctx, s.o.FS, temp, state, m)
	if err != nil {
		removed := s.o.FS.Remove(temp)
		if errors.Is(removed, fs.ErrNotExist) {
			removed = nil
		}
		if removed == nil && (wasStopped(ctx, err) || errors.Is(err, ErrNoRoom)) {
			return SnapshotMeta{}, err
		}
		return SnapshotMeta{}, s.fail(errors.Join(err, removed))
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.keep(temp, m, s.tooOld)
}

// keep takes a durable file among the snapshots, and lets go of what is too old
// then. The caller holds changing.
func (s *Snapshots) keep(temp string, m SnapshotMeta, tooOld func(SnapshotMeta) []SnapshotMeta) (SnapshotMeta, error) {
	if err := s.failed(); err != nil {
		return SnapshotMeta{}, err
	}
	if there, ok := s.Find(m.Position()); ok { // it was received while it was saved
		return there, s.o.FS.Remove(temp)
	}
	if mutant("list_before_durable") {
		s.add(m)
		return m, errors.Join(s.remove(tooOld(m)), s.commit(temp, m))
	}
	if err := s.commit(temp, m); err != nil {
		return SnapshotMeta{}, s.fail(err)
	}
	s.add(m)
	if err := s.remove(tooOld(m)); err != nil {
		return SnapshotMeta{}, s.fail(fmt.Errorf("it is durable, but older ones: %w", err))
	}
	return m, nil
}

// failed is the error that ended it, if any.
func (s *Snapshots) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// fail makes an error final.
func (s *Snapshots) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = fmt.Errorf("an error of the disk ended the saving of snapshots: %w", err)
	return err
}

// commit gives a durable file its name, and then its meta.
func (s *Snapshots) commit(temp string, m SnapshotMeta) error {
	line, err := encodeSnapshotMeta(m)
	if err != nil {
		return errors.Join(err, s.o.FS.Remove(temp))
	}
	if err := s.makeWay(m.Position()); err != nil {
		return err
	}
	if mutant("meta_before_snap") {
		if err := writeFileAtomic(s.o.FS, s.o.Dir, snapshotName(m.Position())+metaSuffix, line); err != nil {
			return err
		}
	}
	if err := s.o.FS.Rename(temp, s.snapPath(m.Position())); err != nil {
		return err
	}
	if err := unless("skip_snap_dir_sync", func() error { return syncDir(s.o.FS, s.o.Dir) }); err != nil {
		return err
	}
	return writeFileAtomic(s.o.FS, s.o.Dir, snapshotName(m.Position())+metaSuffix, line)
}

// makeWay takes the meta from a damaged snapshot of the same name, so that no
// crash pairs it with the new state.
func (s *Snapshots) makeWay(at Position) error {
	err := s.o.FS.Remove(s.metaPath(at))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, syncDir(s.o.FS, s.o.Dir))
}

// add lists a new snapshot.
func (s *Snapshots) add(m SnapshotMeta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damaged = slices.DeleteFunc(s.damaged, func(d damagedSnapshot) bool { return d.at == m.Position() })
	s.list = append(s.list, m)
	s.sort()
}

// tooOld takes from the list what is too old since the state was saved. What is
// newer than that was received, and may be just about to be installed.
func (s *Snapshots) tooOld(saved SnapshotMeta) []SnapshotMeta {
	s.mu.Lock()
	defer s.mu.Unlock()
	var old []SnapshotMeta
	kept := 1 // the saved one, and what is newer was received
	for _, m := range s.list {
		if m.Index >= saved.Index {
			continue
		}
		if kept++; kept > s.o.Keep {
			old = append(old, m)
		}
	}
	s.list = slices.DeleteFunc(s.list, func(m SnapshotMeta) bool { return slices.Contains(old, m) })
	return old
}

// noneTooOld: what was received is not installed yet, and until then the others
// are what the state can be built anew from.
func noneTooOld(SnapshotMeta) []SnapshotMeta { return nil }

// remove removes all metas before the first state: a meta without its state
// is damage to whoever opens next.
func (s *Snapshots) remove(old []SnapshotMeta) error {
	if len(old) == 0 {
		return nil
	}
	for _, m := range old {
		if err := s.o.FS.Remove(s.metaPath(m.Position())); err != nil {
			return fmt.Errorf("remove %s: %w", s.metaPath(m.Position()), err)
		}
	}
	if err := unless("skip_meta_removal_sync", func() error { return syncDir(s.o.FS, s.o.Dir) }); err != nil {
		return err
	}
	for _, m := range old {
		if err := s.o.FS.Remove(s.snapPath(m.Position())); err != nil {
			return fmt.Errorf("remove %s: %w", s.snapPath(m.Position()), err)
		}
	}
	return nil
}
