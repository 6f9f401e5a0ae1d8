package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/registry"
	"github.com/stellmap/stellmap/storage"
)

func (c *ctl) debugCommand() *cobra.Command {
	debug := c.group(&cobra.Command{
		Use:   "debug",
		Short: "Print what is in a data directory, offline",
		Long: `debug prints what is in a data directory: every record of the log, every key of
the state. It asks no server and changes nothing; a stellmapd that is running
in the directory must be stopped, or --force given.`,
		Example: `  stellmapctl debug wal ./stellmap-data
  stellmapctl debug db ./stellmap-data --prefix /services/`,
	})
	debug.AddCommand(c.debugWALCommand(), c.debugDBCommand())
	return debug
}

// dump is one printing of a data directory.
type dump struct {
	c        *ctl
	dir      string
	force    bool
	from, to uint64 // entries of the log
	prefix   string // keys of the state
	out      *bufio.Writer
	odd      int // things that this version does not understand
}

func (d *dump) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&d.force, "force", false, "read though a stellmapd may be running there: what it has not flushed is not seen, what it is writing looks torn")
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usagef("%s wants one data directory, got %d", nameOf(cmd), len(args))
		}
		d.dir = args[0]
		return nil
	}
}

func (c *ctl) debugWALCommand() *cobra.Command {
	d := &dump{c: c}
	cmd := &cobra.Command{
		Use:   "wal DIR",
		Short: "Print every record of the log",
		Long: `wal prints the log of a data directory: for each segment its records with the
offset, the offset up to which it was known to be synced, the hard state (term,
vote, commit), and each entry with index, term, time, request id and command.

It checks what a start checks, goes on up to the first thing that is wrong, and
then exits with 1. Bytes that a crash left of a write at the end are no damage:
they are shown as torn, and the next start cuts them.`,
		Example: `  stellmapctl debug wal ./stellmap-data
  stellmapctl debug wal ./stellmap-data --from 1000 --to 1010
  stellmapctl debug wal ./stellmap-data -o jsonl | jq 'select(.entry == "command").value'`,
		RunE: func(*cobra.Command, []string) error { return d.run("debug wal", d.wal) },
	}
	d.flags(cmd)
	cmd.Flags().Uint64Var(&d.from, "from", 0, "only entries of this index and later ones")
	cmd.Flags().Uint64Var(&d.to, "to", 0, "only entries up to this index")
	return cmd
}

func (c *ctl) debugDBCommand() *cobra.Command {
	d := &dump{c: c}
	cmd := &cobra.Command{
		Use:   "db DIR",
		Short: "Print every key of the state",
		Long: `db prints the state of a data directory as it is on disk: up to which entry of
the log it goes, and each key with the size and the meaning of its value. What
the log has above that, a start applies again.`,
		Example: `  stellmapctl debug db ./stellmap-data
  stellmapctl debug db ./stellmap-data --prefix /registry/default/orders/
  stellmapctl debug db ./stellmap-data -o jsonl | jq 'select(.kind == "service")'`,
		RunE: func(*cobra.Command, []string) error { return d.run("debug db", d.db) },
	}
	d.flags(cmd)
	cmd.Flags().StringVar(&d.prefix, "prefix", "", "only keys that begin so")
	return cmd
}

// run takes the directory, prints, and says what was wrong.
func (d *dump) run(doing string, do func() error) error {
	doing += " " + d.dir
	if o := d.c.output; o != formatTable && o != formatJSONL {
		return usagef("--output: %s prints table or jsonl, not %s", doing, o)
	}
	if d.to != 0 && d.to < d.from {
		return usagef("--to: %d is before --from %d", d.to, d.from)
	}
	lock, err := d.lock()
	if err != nil {
		return &failure{doing: doing, code: "in_use", exit: exitConflict, why: err.Error(),
			next: "stop the stellmapd that runs there, or read a copy; --force reads all the same, though what is not flushed is not seen"}
	}
	d.out = bufio.NewWriter(d.c.stdout)
	err = do()
	err = errors.Join(err, d.out.Flush(), lock.Close())
	var damage *storage.DamageError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &failure{doing: doing, code: "not_found", exit: exitNotFound, why: err.Error(), next: "DIR is a data directory, the node.data_dir of a stellmapd"}
	case errors.As(err, &damage):
		return &failure{doing: doing, code: "damaged", exit: exitFailed, why: err.Error()}
	case err != nil:
		return &failure{doing: doing, code: "failed", exit: exitFailed, why: err.Error()}
	case d.odd > 0:
		return &failure{doing: doing, code: "not_understood", exit: exitFailed, why: "this version does not understand all of it: " + count(d.odd, "problem"),
			next: "they are marked with ! above; a newer version may understand them"}
	}
	return nil
}

func (d *dump) lock() (io.Closer, error) {
	if !d.force {
		return storage.LockDirForReading(vfs.Default, d.dir)
	}
	return io.NopCloser(nil), printLine(d.c.stderr, "--force: a stellmapd that runs there may be writing; what it has not flushed is not seen, and what it is writing looks torn")
}

// line prints one thing: as text, or as an object.
func (d *dump) line(object any, format string, args ...any) error {
	if d.c.output == formatTable {
		_, err := fmt.Fprintln(d.out, strings.TrimRight(printable(fmt.Sprintf(format, args...)), " "))
		return err
	}
	encoded, err := asJSON(object, "")
	if err != nil {
		return err
	}
	_, err = d.out.Write(encoded)
	return err
}

// frameLine is a part of the log that holds no entry, or holds them.
type frameLine struct {
	Segment string     `json:"segment"`
	Offset  int64      `json:"offset"`
	Bytes   int64      `json:"bytes"`
	Kind    string     `json:"kind"`
	Synced  *int64     `json:"synced,omitempty"`
	Before  *positions `json:"before,omitempty"`
	Hard    *hardLine  `json:"hardState,omitempty"`
	Entries int        `json:"entries,omitempty"`
}

type positions struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
}

type hardLine struct {
	Term   uint64 `json:"term"`
	Vote   uint64 `json:"vote"`
	Commit uint64 `json:"commit"`
}

type entryLine struct {
	Segment   string          `json:"segment"`
	Offset    int64           `json:"offset"` // of its frame
	Kind      string          `json:"kind"`   // entry
	Index     uint64          `json:"index"`
	Term      uint64          `json:"term"`
	Bytes     int             `json:"bytes"`
	Entry     string          `json:"entry"` // what kind of entry
	Time      string          `json:"time,omitempty"`
	RequestID string          `json:"requestId,omitempty"`
	Value     json.RawMessage `json:"value,omitempty"`
	Problem   string          `json:"problem,omitempty"`
}

func (d *dump) wal() error {
	return storage.WalkLog(vfs.Default, filepath.Join(d.dir, "wal"), func(f storage.LogFrame) error {
		if !d.wanted(f) {
			return nil
		}
		if err := d.frame(f); err != nil {
			return err
		}
		for _, e := range f.Entries {
			if d.inRange(e.Index) {
				if err := d.entry(f, e); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// wanted tells whether a frame is to be shown: where entries are asked for,
// those that hold one.
func (d *dump) wanted(f storage.LogFrame) bool {
	if d.from == 0 && d.to == 0 {
		return true
	}
	for _, e := range f.Entries {
		if d.inRange(e.Index) {
			return true
		}
	}
	return false
}

func (d *dump) inRange(index uint64) bool { return index >= d.from && (d.to == 0 || index <= d.to) }

func (d *dump) frame(f storage.LogFrame) error {
	l := frameLine{Segment: f.Segment, Offset: f.Offset, Bytes: f.Bytes, Kind: string(f.Kind), Entries: len(f.Entries)}
	switch f.Kind {
	case storage.LogHead:
		l.Before = &positions{f.Before.Index, f.Before.Term}
		return d.line(l, "%s   begins after entry %d of term %d", f.Segment, f.Before.Index, f.Before.Term)
	case storage.LogTorn:
		return d.line(l, "%10d  torn  %d bytes of a write that was cut short; the next start cuts them", f.Offset, f.Bytes)
	}
	l.Synced = &f.Synced
	hard := ""
	if h := f.Hard; h != nil {
		l.Hard = &hardLine{h.Term, h.Vote, h.Commit}
		hard = fmt.Sprintf("   hard state: term %d, vote %d, commit %d", h.Term, h.Vote, h.Commit)
	}
	return d.line(l, "%10d  %s  %d bytes, synced to %d%s", f.Offset, f.Kind, f.Bytes, f.Synced, hard)
}

func (d *dump) entry(f storage.LogFrame, e storage.Entry) error {
	l := entryLine{Segment: f.Segment, Offset: f.Offset, Kind: "entry", Index: e.Index, Term: e.Term, Bytes: len(e.Data)}
	about, err := consensus.DescribeEntry(e)
	l.Entry, l.RequestID, l.Value = about.Kind, about.RequestID, about.Value
	if err == nil && about.Command != nil {
		l.Value, err = registry.DescribeCommand(about.Command)
	}
	text := string(l.Value)
	if err != nil {
		d.odd++
		l.Entry = cmp.Or(l.Entry, "unknown")
		l.Problem, text = err.Error(), "! "+err.Error()
	}
	if about.Time != 0 {
		l.Time = time.UnixMilli(about.Time).UTC().Format("2006-01-02T15:04:05.000Z")
		text = l.Time + " " + text
	}
	if l.RequestID != "" {
		text = "request " + l.RequestID + " " + text
	}
	return d.line(l, "%14d  term %d  %s  %s", e.Index, e.Term, l.Entry, text)
}

type keyLine struct {
	Key     string          `json:"key"`
	Bytes   int             `json:"bytes"`
	Kind    string          `json:"kind"`
	Value   json.RawMessage `json:"value,omitempty"`
	Problem string          `json:"problem,omitempty"`
}

func (d *dump) db() (err error) {
	fatal := make(chan error, 1)
	view, err := storage.OpenEngineReadOnly(storage.EngineOptions{FS: vfs.Default, Dir: filepath.Join(d.dir, "state"), OnFatal: func(err error) {
		select {
		case fatal <- err:
		default:
		}
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	if d.c.output == formatTable && d.prefix == "" {
		at := view.Applied()
		if _, err := fmt.Fprintf(d.out, "the state is the result of the log up to entry %d of term %d\n", at.Index, at.Term); err != nil {
			return err
		}
	}
	var lo, hi []byte
	if d.prefix != "" {
		lo = []byte(d.prefix)
		hi = storage.PrefixEnd(lo)
	}
	if err := view.Scan(lo, hi, d.key); err != nil {
		return err
	}
	select {
	case err := <-fatal:
		return err
	default:
		return nil
	}
}

func (d *dump) key(key, value []byte) error {
	l := keyLine{Key: string(key), Bytes: len(value)}
	var err error
	l.Kind, l.Value, err = describeKey(key, value)
	text := string(l.Value)
	if err != nil {
		d.odd++
		l.Problem, text = err.Error(), "! "+err.Error()
	}
	return d.line(l, "%s  %d bytes  %s  %s", key, len(value), l.Kind, text)
}

// describeKey asks the room that a key belongs to.
func describeKey(key, value []byte) (kind string, text json.RawMessage, err error) {
	if fact, ok, err := consensus.DescribeKey(key, value); ok {
		return fact.Kind, fact.Value, err
	}
	if record, ok, err := registry.DescribeRecord(key, value); ok {
		return record.Kind, record.Value, err
	}
	return "unknown", nil, errors.New("a key that this version does not know")
}
