package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a Log needs.
type Config struct {
	File     string // required: where the newest lines are
	BytesMax int64  // of a file; with the next line it is put aside
	Keep     int    // how many files that were put aside stay
	Reads    bool   // whether those who only read are written down, too
	Required bool   // whether what cannot be written down may not be done

	Note       string                       // what the first line of each process says
	Who        func(context.Context) string // who has proved to be the caller, "" for nobody; nil = nobody ever has
	Now        func() time.Time             // nil = the clock
	Logger     *slog.Logger                 // nil = none
	Registerer prometheus.Registerer        // nil = none
}

// The bounds of a log.
const (
	queueMax      = 16_384                // entries that wait to be written; what comes then is lost, and counted
	syncEvery     = time.Second           // so much may be missing when the machine stops; a process that ends leaves nothing out
	writeBytesMax = 256 << 10             // of one write
	denialsBurst  = 100                   // denials that are told one by one,
	denialEvery   = 50 * time.Millisecond // and how soon there may be one more
)

// ErrUnavailable is of a log that is required and takes nothing at the moment.
var ErrUnavailable = errors.New("audit: the audit log cannot be written")

// A Log writes down what its callers record.
type Log struct {
	config  Config
	log     *slog.Logger
	metrics *metrics
	wake    chan struct{} // holds one: there is something to write
	every   time.Duration // syncEvery, but in tests

	mu       sync.Mutex // guards what follows
	queue    []moment
	spare    []moment // what was written; its room is used again
	lost     uint64   // since it was told
	leftOut  uint64   // since it was told
	denials  time.Time
	troubled error // why the last write failed

	chain *chain // of the goroutine in Run
}

// moment is an entry and when it was, or a count of those that are not told.
type moment struct {
	Entry
	at    time.Time
	count uint64
}

func (m *moment) line() line {
	if m.count > 0 {
		return line{Time: stamp(m.at), Does: m.Does, Count: m.count}
	}
	return m.Entry.line(m.at)
}

// Open goes on with the file, or begins one. A line that the last process has not written
// to its end is cut off; a file that is damaged otherwise is refused.
func Open(c Config) (*Log, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Who == nil {
		c.Who = func(context.Context) string { return "" }
	}
	l := &Log{config: c, log: c.Logger, wake: make(chan struct{}, 1), every: syncEvery, metrics: newMetrics()}
	chain, cut, err := openChain(c.File, c.BytesMax, c.Keep)
	if err != nil {
		return nil, err
	}
	l.chain = chain
	begin := line{Time: stamp(c.Now()), Does: DoesBegin, Note: c.Note}
	if cut > 0 {
		begin.Note += fmt.Sprintf("; cut off %d bytes of a line that was not written to its end", cut)
	}
	if _, err := chain.write([]line{begin}); err != nil {
		return nil, errors.Join(err, chain.close())
	}
	if err := l.metrics.register(c.Registerer, l.waiting); err != nil {
		return nil, errors.Join(err, chain.close())
	}
	return l, nil
}

// Reads says whether those who only read are to be recorded. A nil Log records nothing.
func (l *Log) Reads() bool { return l != nil && l.config.Reads }

// Ready is asked before something is changed: where the log is required and would not take
// it, an error says that it must not be.
func (l *Log) Ready() error {
	if l == nil || !l.config.Required {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.troubled != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, l.troubled)
	case len(l.queue) >= queueMax/2: // those that have been let may still come
		return fmt.Errorf("%w: %d lines wait for the disk", ErrUnavailable, len(l.queue))
	}
	return nil
}

// Record takes an entry down. It does not wait for the disk.
func (l *Log) Record(ctx context.Context, e Entry) {
	if l == nil {
		return
	}
	if e.Who == "" {
		e.Who = l.config.Who(ctx)
	}
	if e.Who == "" {
		e.Who = Anonymous
	}
	now := l.config.Now()
	l.mu.Lock()
	told := l.take(moment{Entry: e, at: now})
	l.mu.Unlock()
	l.metrics.count(&e)
	if told {
		l.rouse()
	}
}

// take finds a place for an entry; false when there is none.
func (l *Log) take(m moment) bool {
	switch {
	case m.Denied && !l.tellsDenial(m.at):
		l.leftOut++
		l.metrics.leftOut.Inc()
		return false
	case len(l.queue) >= queueMax:
		l.lost++
		l.metrics.lost.Inc()
		return false
	}
	l.queue = append(l.queue, m)
	return true
}

// tellsDenial is a bucket of tokens, held as the time at which it is full again: whoever is
// refused over and over must not write a line each time.
func (l *Log) tellsDenial(now time.Time) bool {
	next := l.denials
	if next.Before(now) {
		next = now
	}
	if next.Sub(now) > (denialsBurst-1)*denialEvery {
		return false
	}
	l.denials = next.Add(denialEvery)
	return true
}

func (l *Log) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *Log) waiting() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return float64(len(l.queue))
}

// Close is for a log that nobody runs. After Run it does nothing.
func (l *Log) Close() error { return l.chain.close() }

// Run writes until the context ends, and then what is left.
func (l *Log) Run(ctx context.Context) error {
	if l == nil {
		return nil
	}
	ticks := time.NewTicker(l.every)
	defer ticks.Stop()
	for {
		select {
		case <-l.wake:
			if !l.failing() { // then only the ticks try again
				l.settle(l.flush())
			}
		case <-ticks.C:
			l.settle(errors.Join(l.flushAll(), l.chain.sync()))
		case <-ctx.Done():
			return errors.Join(l.flushAll(), l.chain.close())
		}
	}
}

// flushAll writes what waits, and then the counts, which have no place before.
func (l *Log) flushAll() error {
	if err := l.flush(); err != nil {
		return err
	}
	l.tellCounts()
	return l.flush()
}

// tellCounts puts what was counted and not told into the queue.
func (l *Log) tellCounts() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tellCount(DoesLost, &l.lost)
	l.tellCount(DoesLeftOut, &l.leftOut)
}

func (l *Log) tellCount(does string, count *uint64) {
	if *count > 0 && len(l.queue) < queueMax {
		l.queue = append(l.queue, moment{Entry: Entry{Does: does}, at: l.config.Now(), count: *count})
		*count = 0
	}
}

// flush writes what waits. What the disk does not take goes on waiting.
func (l *Log) flush() error {
	l.mu.Lock()
	batch := l.queue
	l.queue, l.spare = l.spare[:0], nil
	l.mu.Unlock()
	lines := make([]line, len(batch))
	for i := range batch {
		lines[i] = batch[i].line()
	}
	written, err := l.chain.write(lines)
	l.giveBack(batch, written)
	return err
}

// giveBack puts what was not written before what has come meanwhile.
func (l *Log) giveBack(batch []moment, written int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if rest := batch[written:]; len(rest) > 0 {
		l.queue = append(rest, l.queue...)
		if over := len(l.queue) - queueMax; over > 0 {
			l.queue = l.queue[:queueMax]
			l.lost += uint64(over)
			l.metrics.lost.Add(float64(over))
		}
		return
	}
	clear(batch)
	l.spare = batch[:0]
}

func (l *Log) failing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.troubled != nil
}

// settle notes whether the disk takes lines, and says so when that changes.
func (l *Log) settle(err error) {
	l.mu.Lock()
	before := l.troubled
	l.troubled = err
	l.mu.Unlock()
	l.metrics.trouble(err != nil)
	switch {
	case err != nil && before == nil:
		l.log.Error("the audit log cannot be written; it is tried again every second", "file", l.config.File, "writes_refused", l.config.Required, "error", err)
	case err == nil && before != nil:
		l.log.Info("the audit log is written again", "file", l.config.File)
	}
}
