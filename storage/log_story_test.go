package storage

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Each file in testdata/log is a story about a log and its disk, told command
// by command.
func TestLogStories(t *testing.T) {
	files, err := filepath.Glob("testdata/log/*.story")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".story"), func(t *testing.T) {
			s := &logStory{t: t, disk: newFrailDisk()}
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				s.d = d
				return s.handle()
			})
			if s.log != nil {
				check(s.log.Close())
			}
		})
	}
}

type logStory struct {
	t     *testing.T
	d     *datadriven.TestData
	disk  *frailDisk
	log   *Log
	salt  uint64
	syncs int
}

func (s *logStory) handle() string {
	commands := map[string]func() string{
		"open": s.open, "close": s.close, "append": s.append, "sync": s.sync, "mark": s.mark, "truncate": s.truncate, "reset": s.reset,
		"entries": s.entries, "term": s.term, "crash": s.crash, "show": s.show, "memory": s.memory,
		"remove": s.remove, "rename": s.rename, "cut": s.cut, "flip": s.flip,
	}
	command, ok := commands[s.d.Cmd]
	if !ok {
		s.d.Fatalf(s.t, "unknown command %q", s.d.Cmd)
	}
	return command()
}

func (s *logStory) number(key string, fallback uint64) uint64 {
	value := fallback
	if s.d.HasArg(key) {
		s.d.ScanArgs(s.t, key, &value)
	}
	return value
}

func (s *logStory) text(key string) string {
	var value string
	if s.d.HasArg(key) {
		s.d.ScanArgs(s.t, key, &value)
	}
	return value
}

// open base=3/1 applied=5 segment=200 tail=100
func (s *logStory) open() string {
	o := LogOptions{
		FS: s.disk, Dir: "wal", Applied: s.number("applied", 0), SegmentBytes: int64(s.number("segment", 0)), TailBytes: int(s.number("tail", 0)),
		Salt: func() uint64 { s.salt++; return s.salt }, OnSync: func(time.Duration) { s.syncs++ },
	}
	if base := s.text("base"); base != "" {
		scan3(base, &o.Base.Index, &o.Base.Term)
	}
	log, err := OpenLog(o)
	if err != nil {
		return err.Error() + "\n"
	}
	s.log = log
	c := log.Load()
	return fmt.Sprintf("%s, %s, torn bytes %d\n", s.extent(), hardText(c.HardState), c.TornBytes)
}

// scan3 reads numbers with slashes between.
func scan3(text string, to ...*uint64) {
	for i, part := range strings.Split(text, "/") {
		_, err := fmt.Sscan(part, to[i])
		check(err)
	}
}

func (s *logStory) extent() string {
	c := s.log.Load()
	if c.First > c.Last {
		return fmt.Sprintf("empty after %d", c.Last)
	}
	return fmt.Sprintf("%d to %d", c.First, c.Last)
}

func hardText(h HardState) string {
	return fmt.Sprintf("term %d vote %d commit %d", h.Term, h.Vote, h.Commit)
}

func said(err error, otherwise string) string {
	if err != nil {
		return err.Error() + "\n"
	}
	return otherwise + "\n"
}

func (s *logStory) close() string {
	err := s.log.Close()
	s.log = nil
	return said(err, "ok")
}

// append hard=term/vote/commit, with a line for each entry: index/term data.
func (s *logStory) append() string {
	var hard *HardState
	if text := s.text("hard"); text != "" {
		hard = new(HardState)
		scan3(text, &hard.Term, &hard.Vote, &hard.Commit)
	}
	var entries []Entry
	for line := range strings.Lines(s.d.Input) {
		at, data, _ := strings.Cut(strings.TrimSpace(line), " ")
		e := Entry{Data: []byte(data)}
		scan3(at, &e.Index, &e.Term)
		entries = append(entries, e)
	}
	err := s.log.Append(entries, hard)
	return said(err, s.extent())
}

func (s *logStory) sync() string { return said(s.log.Sync(), "ok") }
func (s *logStory) mark() string { return said(s.log.Mark(), "ok") }

func (s *logStory) truncate() string {
	err := s.log.TruncatePrefix(s.number("to", 0))
	return said(err, s.extent())
}

// reset index=9 term=2 hard=2/1/9; with "unremoved" no file can be removed
func (s *logStory) reset() string {
	if s.d.HasArg("unremoved") {
		s.disk.before = func(op, _ string) error {
			if op == "remove" {
				return errors.New("no removing")
			}
			return nil
		}
		defer func() { s.disk.before = nil }()
	}
	var h HardState
	scan3(s.text("hard"), &h.Term, &h.Vote, &h.Commit)
	if err := s.log.Reset(Position{s.number("index", 0), s.number("term", 1)}, h); err != nil {
		return err.Error() + "\n"
	}
	return s.extent() + "\n"
}

// entries lo=1 hi=4 max=100
func (s *logStory) entries() string {
	entries, err := s.log.Entries(s.number("lo", 0), s.number("hi", 0), s.number("max", 1<<20))
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%d/%d %s\n", e.Index, e.Term, e.Data)
	}
	return b.String()
}

// term 1 2 3
func (s *logStory) term() string {
	var b strings.Builder
	for _, arg := range s.d.CmdArgs {
		var index uint64
		scan3(arg.Key, &index)
		term, err := s.log.Term(index)
		fmt.Fprintf(&b, "%d: %s", index, said(err, fmt.Sprint(term)))
	}
	return b.String()
}

// crash cuts the power; of what is not synced nothing is left, or all.
func (s *logStory) crash() string {
	keep := nothing
	if s.text("keeps") == "all" {
		keep = everything
	}
	s.disk = s.disk.cutPower(keep)
	s.log = nil
	return ""
}

// show has a line for each file and each frame in it.
func (s *logStory) show() string {
	names, err := s.disk.List("wal")
	if err != nil {
		return err.Error() + "\n"
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%s", name)
		sequence, ok := segmentSequence(name)
		if !ok {
			b.WriteString("\n")
			continue
		}
		r, err := openSegment(s.disk, "wal", sequence)
		check(err)
		how := "after"
		if r.head.reset {
			how = "anew after"
		}
		fmt.Fprintf(&b, ": %s entry %d of term %d\n", how, r.head.before.Index, r.head.before.Term)
		showFrames(&b, r)
		check(r.close())
	}
	return b.String()
}

func showFrames(b *strings.Builder, r *segmentReader) {
	for {
		f, err := r.next()
		if err != nil {
			break
		}
		fmt.Fprintf(b, "  %d, synced %d:", f.offset, f.synced)
		switch f.kind {
		case frameMark:
			b.WriteString(" mark")
		case frameSeal:
			b.WriteString(" seal")
		default:
			record, err := decodeRecord(f.payload)
			check(err)
			if record.hard != nil {
				fmt.Fprintf(b, " %s", hardText(*record.hard))
			}
			for _, e := range record.entries {
				fmt.Fprintf(b, " %d/%d", e.Index, e.Term)
			}
		}
		b.WriteString("\n")
	}
}

// memory tells which entries are in memory.
func (s *logStory) memory() string {
	return fmt.Sprintf("%d to %d, %d bytes\n", s.log.tailFirst(), s.log.last, s.log.tailSize)
}

// change puts other bytes in a file's place, on the disk.
func (s *logStory) change(change func([]byte) []byte) string {
	name := "wal/" + segmentName(s.number("segment", 0))
	f := s.disk.now[name]
	data := change(bytes.Clone(f.now))
	s.disk.put(name, &frailFile{now: data, disk: bytes.Clone(data), dirty: map[int]bool{}})
	return ""
}

// cut segment=2 at=100
func (s *logStory) cut() string {
	return s.change(func(b []byte) []byte { return b[:s.number("at", 0)] })
}

// flip segment=2 at=100 turns the lowest bit of a byte.
func (s *logStory) flip() string {
	return s.change(func(b []byte) []byte { b[s.number("at", 0)] ^= 1; return b })
}

// remove segment=2, or all of the folder
func (s *logStory) remove() string {
	if s.d.HasArg("segment") {
		check(s.disk.Remove("wal/" + segmentName(s.number("segment", 0))))
		return ""
	}
	names, err := s.disk.List("wal")
	for _, name := range names {
		err = errors.Join(err, s.disk.Remove("wal/"+name))
	}
	check(err)
	return ""
}

// rename segment=2 to=3
func (s *logStory) rename() string {
	check(s.disk.Rename("wal/"+segmentName(s.number("segment", 0)), "wal/"+segmentName(s.number("to", 0))))
	return ""
}

var _ vfs.FS = (*frailDisk)(nil)
