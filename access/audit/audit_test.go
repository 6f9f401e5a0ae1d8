package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/stellmap/stellmap/internal/corpus"
)

// A diary is a log of a test, whose clock only the test moves.
type diary struct {
	*Log
	tb   testing.TB
	file string
	at   atomic.Int64 // Unix nanoseconds
}

func open(tb testing.TB, file string, change func(*Config)) *diary {
	tb.Helper()
	d := &diary{tb: tb, file: file}
	d.at.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	c := Config{
		File: file, BytesMax: 1 << 20, Keep: 3, Note: "node 1",
		Now: func() time.Time { return time.Unix(0, d.at.Load()) },
	}
	if change != nil {
		change(&c)
	}
	var err error
	if d.Log, err = Open(c); err != nil {
		tb.Fatal(err)
	}
	d.every = time.Millisecond
	return d
}

func newDiary(tb testing.TB) *diary {
	return open(tb, filepath.Join(tb.TempDir(), "audit.log"), nil)
}

// during has the log written while a function runs, and to its end then.
func (d *diary) during(do func()) {
	d.tb.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var writer sync.WaitGroup
	var err error
	writer.Go(func() { err = d.Run(ctx) })
	do()
	stop()
	writer.Wait()
	if err != nil {
		d.tb.Fatal(err)
	}
}

func (d *diary) record(entries ...Entry) {
	for _, e := range entries {
		d.Record(context.Background(), e)
	}
}

func registered(n int) Entry {
	return Entry{Who: "spiffe://example.org/ns/prod/sa/orders", From: "10.0.0.1:4711", Port: "http", Does: "registerInstance",
		On: fmt.Sprintf("prod/orders/%d", n), Before: uint64(n), After: uint64(n + 1), Request: "r-1"}
}

func refused(n int) Entry {
	e := registered(n)
	e.Denied, e.Code, e.After = true, "unauthorized", 0
	return e
}

func text(tb testing.TB, file string) string {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func put(tb testing.TB, file, content string) {
	tb.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// valueOf is what a counter has come to.
func valueOf(c prometheus.Counter) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}

func verified(tb testing.TB, files ...string) Report {
	tb.Helper()
	r, err := Verify(files, Mark{})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// A line tells all that is known of an act, for its owner alone to read, and what a caller
// makes up stays within it.
func TestWhatALineTells(t *testing.T) {
	d := newDiary(t)
	d.during(func() {
		d.record(registered(7), Entry{Port: "admin", Does: "x", On: "a\nb\x1b[31m\"", Denied: true, Code: "unauthorized", Request: strings.Repeat("é", fieldBytesMax)})
	})
	lines := strings.Split(text(t, d.file), "\n")
	if len(lines) != 4 {
		t.Fatalf("there are %d lines, want one of the start and two: %q", len(lines)-1, lines)
	}
	for at, want := range map[int]string{
		0: `"does":"audit.begin","note":"node 1"`,
		1: `{"seq":2,"time":"2026-03-01T12:00:00Z","who":"spiffe://example.org/ns/prod/sa/orders","from":"10.0.0.1:4711","port":"http","does":"registerInstance","on":"prod/orders/7","decision":"allowed","before":7,"after":8,"request":"r-1","prev":"`,
		2: `"who":"anonymous","port":"admin","does":"x","on":"a\nb\u001b[31m\"","decision":"denied","code":"unauthorized","request":"éé`,
	} {
		if !strings.Contains(lines[at], want) {
			t.Errorf("line %d is\n%s\nwant in it\n%s", at, lines[at], want)
		}
	}
	if info, err := os.Stat(d.file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v; want -rw-------", info.Mode(), err)
	}
	if r := verified(t, d.file); r.Last != 3 || r.Denied != 1 {
		t.Errorf("the report is %+v", r)
	}
}

// full is a log of several files, the oldest first.
func full(t *testing.T) (files []string) {
	d := open(t, filepath.Join(t.TempDir(), "audit.log"), func(c *Config) { c.BytesMax, c.Keep = 2_000, 100 })
	d.during(func() {
		for n := range 20 {
			d.record(registered(n))
		}
	})
	asides, err := d.chain.asides()
	if err != nil || len(asides) < 3 {
		t.Fatalf("there are %d files put aside, %v; want some", len(asides), err)
	}
	return append(asides, d.file)
}

// Whatever is done to the files is found, and where it is.
func TestVerifyFindsWhatWasDone(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(lines []string) []string // to the second file
		want string
	}{
		"a letter changed": {func(l []string) []string { return with(l, 1, strings.Replace(l[1], "orders/", "ordern/", 1)) }, ":2: its hash is not that of its text"},
		"the last changed": {func(l []string) []string {
			return with(l, len(l)-1, strings.Replace(l[len(l)-1], "10.0.0.1", "10.0.0.2", 1))
		}, "its hash is not that of its text"},
		"a hash changed":       {func(l []string) []string { return with(l, 1, l[1][:len(l[1])-3]+"x\"}") }, ":2: its hash is not that of its text"},
		"a line taken out":     {func(l []string) []string { return append(l[:1:1], l[2:]...) }, ":2: it is line 8 of the log, and line 7 should be here"},
		"lines moved":          {func(l []string) []string { l[1], l[2] = l[2], l[1]; return l }, ":2: it is line 8 of the log, and line 7 should be here"},
		"a line twice":         {func(l []string) []string { return append(l[:2:2], l[1:]...) }, ":3: it is line 7 of the log, and line 8 should be here"},
		"a line made up":       {func(l []string) []string { return with(l, 1, forged(l[1])) }, ":3: the line before it is not the one"},
		"cut within a line":    {func(l []string) []string { return with(l, len(l)-1, l[len(l)-1][:40]) }, "it has 40 bytes, which no line has"},
		"the last lines gone":  {func(l []string) []string { return l[:len(l)-1] }, ":1: it is line "},
		"a line that is short": {func(l []string) []string { return with(l, 1, "{}") }, ":2: it has 2 bytes, which no line has"},
		"a line without end":   {func(l []string) []string { return with(l, 1, strings.Repeat("a", lineBytesMax+1)) }, ":2: it has more than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			files := full(t)
			lines := strings.Split(strings.TrimSuffix(text(t, files[1]), "\n"), "\n")
			put(t, files[1], strings.Join(c.do(lines), "\n")+"\n")
			mustBeDamaged(t, files, Mark{}, c.want)
		})
	}
}

func mustBeDamaged(t *testing.T, files []string, mark Mark, want string) {
	t.Helper()
	_, err := Verify(files, mark)
	var damage *DamageError
	if !errors.As(err, &damage) || !strings.Contains(err.Error(), want) {
		t.Errorf("Verify says %v, want %q", err, want)
	}
}

func with(lines []string, at int, line string) []string {
	lines[at] = line
	return lines
}

// forged is a line with another text and a hash that fits it.
func forged(line string) string {
	l, at, err := read([]byte(line))
	if err != nil {
		return line
	}
	l.On = "prod/ledger/1"
	out, _, _ := link{at.seq - 1, l.Prev}.add(nil, l)
	return strings.TrimSuffix(string(out), "\n")
}

// The files are given in any order; one that is missing between two is missed, and so is an
// end by who has kept a mark of it.
func TestVerifyFollowsTheFiles(t *testing.T) {
	files := full(t)
	whole := verified(t, files...)
	slices.Reverse(files)
	if r := verified(t, files...); r != whole {
		t.Errorf("in another order the report is %+v, want %+v", r, whole)
	}
	slices.Reverse(files)
	if whole.First != 1 || whole.Last != 21 {
		t.Fatalf("the report is %+v, want the lines 1 to 21", whole)
	}
	if later := verified(t, files[1:]...); later.First <= 1 || later.Last != 21 {
		t.Errorf("without the oldest file the report is %+v", later)
	}
	mustBeDamaged(t, append(files[:1:1], files[2:]...), Mark{}, "a file is missing")
	mark := Mark{whole.Last, whole.Hash}
	if _, err := Verify(files, mark); err != nil {
		t.Errorf("with a mark that is right: %v", err)
	}
	mustBeDamaged(t, files, Mark{whole.Last, origin.hash}, "the log was written anew")
	mustBeDamaged(t, files[:len(files)-1], mark, "line 21 was there: its end is cut off")
	mustBeDamaged(t, files[1:], Mark{1, origin.hash}, "that of the mark, 1, is in an older file")
	put(t, files[0], strings.TrimSuffix(text(t, files[0]), "}\n"))
	mustBeDamaged(t, files[:1], Mark{}, ":5: it is not whole: the file was cut off in it")
}

// Of the files that are full only so many are kept, and nobody else can read them.
func TestFilesThatAreFull(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "audit.log"), func(c *Config) { c.BytesMax, c.Keep = 2_000, 2 })
	put(t, d.file+".notes", "somebody's")
	d.during(func() {
		for n := range 50 {
			d.record(registered(n))
		}
	})
	files, err := d.chain.asides()
	if err != nil || len(files) != 2 {
		t.Fatalf("%d files are kept aside, %v; want 2", len(files), err)
	}
	files = append(files, d.file)
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 || info.Size() > 2_000 {
			t.Errorf("%s: %v, %v; want -rw------- and at most 2000 bytes", f, info, err)
		}
	}
	if r := verified(t, files...); r.Last != 51 || r.First == 1 {
		t.Errorf("the report is %+v", r)
	}
	text(t, d.file+".notes")
}

// The next process goes on with the chain, also where the last one ended within a line or
// between two files.
func TestTheNextProcessGoesOn(t *testing.T) {
	d := newDiary(t)
	d.during(func() { d.record(registered(1)) })
	put(t, d.file, text(t, d.file)+`{"seq":3,"time":"20`)
	d = open(t, d.file, nil)
	d.during(func() { d.record(registered(2)) })
	if r := verified(t, d.file); r.Last != 4 {
		t.Errorf("the report is %+v, want 4 lines", r)
	}
	if !strings.Contains(text(t, d.file), "node 1; cut off 19 bytes of a line") {
		t.Errorf("the log does not tell of what was cut off:\n%s", text(t, d.file))
	}
	aside := d.chain.aside(1)
	if err := os.Rename(d.file, aside); err != nil {
		t.Fatal(err)
	}
	d = open(t, d.file, nil)
	d.during(func() {})
	if r := verified(t, d.file, aside); r.Last != 5 || r.Files != 2 {
		t.Errorf("the report is %+v, want 5 lines in two files", r)
	}
}

// A newest file without a whole line, as power that fails just after one was put aside
// leaves it, begins no second chain, which would be written over the first one's files.
func TestTheChainGoesOnFromTheFileBefore(t *testing.T) {
	for _, left := range []string{"", `{"seq":19,"time":"20`} {
		files := full(t)
		newest := files[len(files)-1]
		before := verified(t, files[:len(files)-1]...)
		put(t, newest, left)
		d := open(t, newest, func(c *Config) { c.BytesMax, c.Keep = 2_000, 100 })
		d.during(func() {
			for n := range 20 {
				d.record(registered(n))
			}
		})
		asides, err := d.chain.asides()
		if err != nil || len(asides) < len(files) {
			t.Fatalf("%q: %d files are aside, %v; want more than before", left, len(asides), err)
		}
		if r := verified(t, append(asides, newest)...); r.First != 1 || r.Last != before.Last+21 {
			t.Errorf("%q: the report is %+v, want the lines 1 to %d", left, r, before.Last+21)
		}
	}
}

// A file that somebody has changed is not gone on with.
func TestADamagedFileIsRefused(t *testing.T) {
	d := newDiary(t)
	d.during(func() { d.record(registered(1)) })
	put(t, d.file, strings.Replace(text(t, d.file), "orders/1", "orders/2", 1))
	_, err := Open(Config{File: d.file, BytesMax: 1 << 20})
	if err == nil || !strings.Contains(err.Error(), "the last line: its hash is not that of its text: it was changed; move its files away") {
		t.Errorf("Open says %v", err)
	}
}

// Whoever is refused over and over writes so many lines and then some a second; the rest is
// counted, and the log says how many these are.
func TestDenialsAreToldSoFast(t *testing.T) {
	d := newDiary(t)
	d.during(func() {
		for n := range denialsBurst + 1 {
			d.record(refused(n))
		}
		d.at.Add(int64(denialEvery))
		d.record(refused(0), refused(0), registered(1))
	})
	r := verified(t, d.file)
	if r.Denied != denialsBurst+1 || r.LeftOut != 2 {
		t.Errorf("%d denials are told and %d left out, want %d and 2", r.Denied, r.LeftOut, denialsBurst+1)
	}
	if got := valueOf(d.metrics.recorded.WithLabelValues("http", denied)); got != denialsBurst+3 {
		t.Errorf("%v denials are counted, want %d", got, denialsBurst+3)
	}
}

// flaky is a file on a disk that takes half of a write, or all.
type flaky struct {
	file
	broken *atomic.Bool
}

var errFull = errors.New("no space left on device")

func (f flaky) Write(b []byte) (int, error) {
	if !f.broken.Load() {
		return f.file.Write(b)
	}
	n, _ := f.file.Write(b[:len(b)/2])
	return n, errFull
}

// While the disk takes nothing a log that is required lets nothing be done; the lines wait,
// so many as there is room for, and are written when it takes them again.
func TestADiskThatTakesNothing(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "audit.log"), func(c *Config) { c.Required, c.BytesMax = true, 64<<20 })
	broken := new(atomic.Bool)
	d.chain.file = flaky{d.chain.file, broken}
	broken.Store(true)
	d.record(registered(0))
	for d.Ready() == nil {
		d.settle(d.flush())
	}
	if err := d.Ready(); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errFull) {
		t.Errorf("Ready says %v, want ErrUnavailable and why", err)
	}
	for n := 1; n <= queueMax; n++ {
		d.record(registered(n))
	}
	if got := valueOf(d.metrics.lost); got != 1 {
		t.Errorf("%v lines are lost, want 1: there is room for %d", got, queueMax)
	}
	broken.Store(false)
	d.during(func() {})
	r := verified(t, d.file)
	if r.Lost != 1 || r.Last != queueMax+2 {
		t.Errorf("the report is %+v, want %d lines and one lost", r, queueMax+2)
	}
}

// With half of the places taken a log that is required lets nothing be done, since those that
// were let are still to come; another one lets all be done.
func TestALogThatCannotFollow(t *testing.T) {
	for _, required := range []bool{true, false} {
		d := open(t, filepath.Join(t.TempDir(), "audit.log"), func(c *Config) { c.Required = required })
		for n := range queueMax/2 - 1 {
			d.record(registered(n))
		}
		if err := d.Ready(); err != nil {
			t.Errorf("with %d places taken: %v", queueMax/2-1, err)
		}
		d.record(registered(0))
		if err := d.Ready(); errors.Is(err, ErrUnavailable) != required {
			t.Errorf("required %v: Ready says %v", required, err)
		}
		d.during(func() {})
	}
}

// Many record at the same time, and nothing is missing.
func TestManyRecord(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "audit.log"), func(c *Config) { c.BytesMax, c.Keep, c.Registerer = 64<<10, 1000, prometheus.NewRegistry() })
	d.during(func() {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for n := range 200 {
					d.record(registered(n))
				}
			})
		}
		all.Wait()
	})
	files, err := d.chain.asides()
	if err != nil {
		t.Fatal(err)
	}
	if r := verified(t, append(files, d.file)...); r.Last != 1601 || r.Lost != 0 {
		t.Errorf("the report is %+v, want 1601 lines", r)
	}
}

// Nobody records where there is no log.
func TestNoLog(t *testing.T) {
	var l *Log
	l.Record(context.Background(), registered(1))
	if l.Ready() != nil || l.Reads() {
		t.Error("no log wants something")
	}
}

// FuzzLine: what is read as a line is one that this package writes, to the byte.
func FuzzLine(f *testing.F) {
	for n := range 3 {
		e := registered(n)
		out, _, _ := origin.add(nil, e.line(time.Unix(int64(n), 0)))
		corpus.Add(f, fmt.Sprint("line ", n), bytes.TrimSuffix(out, []byte("\n")))
	}
	corpus.Add(f, "a hash alone", []byte(`{"hash":"`+origin.hash+`"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, at, err := read(text); err == nil && !bytes.Contains(text, []byte(hashKey+at.hash)) {
			t.Errorf("%q is read as a line with the hash %s", text, at.hash)
		}
	})
}

// BenchmarkRecord is what an act costs the one who does it, and its line.
func BenchmarkRecord(b *testing.B) {
	d := open(b, filepath.Join(b.TempDir(), "audit.log"), func(c *Config) { c.BytesMax = 64 << 20 })
	e := registered(1)
	b.ReportAllocs()
	d.during(func() {
		for b.Loop() {
			d.Record(context.Background(), e)
		}
	})
	b.ReportMetric(valueOf(d.metrics.lost)/float64(b.N), "lost/op")
}
