package storage

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Position is a place in the log.
type Position struct{ Index, Term uint64 }

// Applied is the last entry that is in the state.
type Applied = Position

// Defaults of EngineOptions.
const (
	cacheBytesDefault    = 64 << 20
	memTableBytesDefault = 32 << 20
)

// engineFormat is the version of Pebble's files. It is fixed, because Pebble's
// default is the oldest it still reads and a later one cannot be undone.
const engineFormat = pebble.FormatValueSeparation

// EngineOptions says where the state is and how much memory it may take.
type EngineOptions struct {
	FS            vfs.FS
	Dir           string       // "state" in the data directory
	CacheBytes    int64        // block cache; default 64 MiB
	MemTableBytes int64        // flushed when full; default 32 MiB
	Logger        *slog.Logger // nil: no messages
	// OnFatal is told of an error in the background (a flush or compaction
	// that the disk refused, a file that is damaged). The state can no longer
	// become durable, so the owner ends the process. It is called on any
	// goroutine, perhaps more than once, and must not call the engine. Nothing of
	// the state is written after it. Nil: panic.
	OnFatal func(error)
}

// Engine is the state and the position of the log that it is the result of.
//
// Apply, Restore and Close are one goroutine's; the reads are anybody's, and
// Restore switches under them: each sees the old state or the new one.
type Engine struct {
	o      EngineOptions
	held   *heldErrors // until Trust; nil = never
	broken breakage

	mu      sync.RWMutex // held shared by whoever uses db, alone by Restore and Close
	db      *stateDB
	applied Position
}

// currentFile names the active folder, the first of which is always the same.
const (
	currentFile = "CURRENT"
	firstFolder = "1"
)

// ErrClosed is returned by every call after Close.
var ErrClosed = errors.New("storage: closed")

// OpenEngine opens the state, or begins an empty one at position {0, 0}.
// Folders that a crash left half made or half removed are removed.
func OpenEngine(o EngineOptions) (*Engine, error) {
	o = o.withDefaults()
	if err := makeDir(o.FS, o.Dir); err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	name, err := readCurrent(o.FS, o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	e := &Engine{o: o, broken: breakage{told: make(chan struct{})}}
	e.o.OnFatal = func(err error) { e.broken.tell(err); o.OnFatal(err) }
	if err := removeOthers(o.FS, o.Dir, name); err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	if e.db, err = e.openPebble(cmp.Or(name, firstFolder)); err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	if name == "" {
		err = writeFileAtomic(o.FS, o.Dir, currentFile, []byte(e.db.name))
	}
	if err == nil {
		e.applied, err = readApplied(e.db, nil)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open engine: %w", err), e.db.Close())
	}
	return e, nil
}

func (o EngineOptions) withDefaults() EngineOptions {
	if o.CacheBytes == 0 {
		o.CacheBytes = cacheBytesDefault
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = memTableBytesDefault
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnFatal == nil {
		o.OnFatal = func(err error) { panic(fmt.Sprintf("storage: engine: %v", err)) }
	}
	return o
}

// stateDB is Pebble in one folder below Dir, and how many look at moments of it.
type stateDB struct {
	*pebble.DB
	name string // of the folder, a number

	mu        sync.Mutex // guards what follows
	snapshots int        // open ones
	replaced  func()     // what is done when the last of them is closed; nil while it is the state
}

// snapshot is the moment. The caller knows that the database is the state.
func (db *stateDB) snapshot() *pebble.Snapshot {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.snapshots++
	return db.NewSnapshot()
}

// replace does what ends the database when nobody looks at it any more.
func (db *stateDB) replace(end func()) {
	db.mu.Lock()
	db.replaced = end
	unused := db.snapshots == 0
	db.mu.Unlock()
	if unused {
		end()
	}
}

// release closes a moment.
func (db *stateDB) release(s *pebble.Snapshot) error {
	err := s.Close()
	db.mu.Lock()
	db.snapshots--
	end := db.replaced
	last := db.snapshots == 0 && end != nil
	db.mu.Unlock()
	if last {
		end()
	}
	return err
}

// openPebble opens one folder below Dir.
func (e *Engine) openPebble(name string) (*stateDB, error) {
	o := e.o
	cache := pebble.NewCache(o.CacheBytes)
	defer cache.Unref() // the database holds its own reference
	db, err := e.broken.open(o.FS.PathJoin(o.Dir, name), &pebble.Options{
		FS:                 haltFS{o.FS, &e.broken},
		Cache:              cache,
		MemTableSize:       uint64(o.MemTableBytes),
		DisableWAL:         true,
		FormatMajorVersion: engineFormat,
		Logger:             pebbleLogger{o.Logger, o.OnFatal},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { o.OnFatal(err) },
			DataCorruption:  func(info pebble.DataCorruptionInfo) { o.OnFatal(damagedState("pebble: %s", info)) },
		},
	})
	if err != nil {
		return nil, err
	}
	return &stateDB{DB: db, name: name}, nil
}

// pebbleLogger passes on what an operator should see of Pebble's messages.
type pebbleLogger struct {
	log   *slog.Logger
	fatal func(error)
}

func (l pebbleLogger) Infof(format string, args ...any) {
	l.log.Debug("pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.log.Error("pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.fatal(fmt.Errorf("pebble: "+format, args...))
}

// Batch is changes that become true together.
type Batch struct{ b *pebble.Batch }

// NewBatch begins a batch, which ends with Apply or Close.
func (e *Engine) NewBatch() *Batch {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.db == nil {
		return &Batch{new(pebble.Batch)} // Apply says that the engine is closed
	}
	return &Batch{e.db.NewBatch()}
}

// Set puts a value. Key and value are copied.
func (b *Batch) Set(key, value []byte) {
	if err := b.b.Set(key, value, nil); err != nil {
		panic(fmt.Sprintf("storage: set %q in a batch: %v", key, err)) // memory only: cannot fail
	}
}

// Delete removes a key, which need not exist.
func (b *Batch) Delete(key []byte) {
	if err := b.b.Delete(key, nil); err != nil {
		panic(fmt.Sprintf("storage: delete %q in a batch: %v", key, err))
	}
}

// Len is the bytes that the batch takes.
func (b *Batch) Len() int { return b.b.Len() }

// Close drops a batch that was not applied.
func (b *Batch) Close() error { return b.b.Close() }

// Apply makes the batch part of the state, which thereby is the result of the
// log up to at. The batch is used up. It is not on disk before the next flush.
func (e *Engine) Apply(b *Batch, at Position) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.db == nil {
		return ErrClosed
	}
	if at.Index < e.applied.Index {
		panic(fmt.Sprintf("storage: apply of a batch at index %d to a state at %d", at.Index, e.applied.Index))
	}
	if mutant("applied_outside_batch") {
		if err := e.db.Set([]byte(appliedKey), encodePosition(at), pebble.NoSync); err != nil {
			return err
		}
	} else {
		b.Set([]byte(appliedKey), encodePosition(at))
	}
	if err := e.db.Apply(b.b, pebble.NoSync); err != nil {
		return fmt.Errorf("apply at index %d: %w", at.Index, err)
	}
	if err := b.b.Close(); err != nil {
		return fmt.Errorf("close the batch of index %d: %w", at.Index, err)
	}
	e.applied = at
	return nil
}

// AppliedIndex is the last entry in the state. Only the goroutine that applies
// may ask.
func (e *Engine) AppliedIndex() Position { return e.applied }

// Get returns a copy of the value, or false when there is none.
func (e *Engine) Get(key []byte) ([]byte, bool, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.db == nil {
		return nil, false, ErrClosed
	}
	return get(e.db, key)
}

// get reads one value of a database or a snapshot of one.
func get(r pebble.Reader, key []byte) ([]byte, bool, error) {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("get %q: %w", key, err)
	}
	value = append([]byte(nil), value...)
	return value, true, closer.Close()
}

// Scan calls fn for each key from lo to before hi in order; nil is no bound.
// Key and value are valid only in fn, whose error ends the scan.
func (e *Engine) Scan(lo, hi []byte, fn func(key, value []byte) error) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.db == nil {
		return ErrClosed
	}
	return scan(e.db, lo, hi, fn)
}

// scan walks a database or a snapshot of one.
func scan(r pebble.Reader, lo, hi []byte, fn func(key, value []byte) error) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		return fmt.Errorf("scan from %q: %w", lo, err)
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		err = fn(it.Key(), it.Value())
	}
	return errors.Join(err, it.Error(), it.Close())
}

// DurableIndex is the applied index that a crash at this moment would leave.
func (e *Engine) DurableIndex() (uint64, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.db == nil {
		return 0, ErrClosed
	}
	at, err := readApplied(e.db, &pebble.IterOptions{OnlyReadGuaranteedDurable: !mutant("cut_beyond_durable")})
	return at.Index, err
}

// readApplied reads the position in the state; none is {0, 0}.
func readApplied(r pebble.Reader, o *pebble.IterOptions) (Position, error) {
	it, err := r.NewIter(o)
	if err != nil {
		return Position{}, fmt.Errorf("read the applied index: %w", err)
	}
	var at Position
	if it.SeekGE([]byte(appliedKey)) && string(it.Key()) == appliedKey {
		at, err = decodePosition(it.Value())
	}
	if err := errors.Join(err, it.Error(), it.Close()); err != nil {
		return Position{}, fmt.Errorf("read the applied index: %w", err)
	}
	return at, nil
}

// Flush makes everything applied so far durable.
func (e *Engine) Flush() error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.db == nil {
		return ErrClosed
	}
	if err := e.broken.flush(e.db.DB); err != nil {
		return fmt.Errorf("flush the engine: %w", err)
	}
	return nil
}

// Close flushes and closes. Snapshots must have been closed before, those of
// states that Restore replaced, too.
func (e *Engine) Close() error {
	flushed := e.Flush()
	if errors.Is(flushed, ErrClosed) {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	err := errors.Join(flushed, e.db.Close())
	e.db = nil
	return err
}

func encodePosition(p Position) []byte {
	b := binary.BigEndian.AppendUint64(nil, p.Index)
	return binary.BigEndian.AppendUint64(b, p.Term)
}

func decodePosition(b []byte) (Position, error) {
	if len(b) != 16 {
		return Position{}, fmt.Errorf("a position of %d bytes, want 16", len(b))
	}
	return Position{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}, nil
}

// readCurrent is the name of the active folder, "" before the first.
func readCurrent(fs vfs.FS, dir string) (string, error) {
	data, ok, err := readFile(fs, fs.PathJoin(dir, currentFile))
	if err != nil || !ok {
		return "", err
	}
	name := string(data)
	if n, err := strconv.ParseUint(name, 10, 32); err != nil || n == 0 {
		return "", damagedState("%s names %q, want the number of a folder; it was damaged or edited", fs.PathJoin(dir, currentFile), name)
	}
	if _, err := fs.Stat(fs.PathJoin(dir, name)); err != nil {
		return "", fmt.Errorf("%s names folder %s: %w", fs.PathJoin(dir, currentFile), name, err)
	}
	return name, nil
}

// removeOthers removes what a crash left beside the active folder. Before there
// is one, the first may be half made, and that is opened as it is; another one
// was named once, and who named it is lost.
func removeOthers(fs vfs.FS, dir, active string) error {
	names, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, name := range names {
		_, err := strconv.ParseUint(strings.TrimSuffix(name, tempSuffix), 10, 32)
		switch {
		case name == active || name == currentFile:
			continue
		case err != nil && name != currentFile+tempSuffix:
			continue // not ours
		case active == "" && name == firstFolder:
			continue
		case active == "" && !strings.HasSuffix(name, tempSuffix):
			return damagedState("%s is missing, though folder %s is there; it is left as it is. Put an intact copy of the data directory back, or replace this member by one with a new id and an empty directory", fs.PathJoin(dir, currentFile), name)
		}
		if err := fs.RemoveAll(fs.PathJoin(dir, name)); err != nil {
			return fmt.Errorf("remove a leftover: %w", err)
		}
	}
	return nil
}
