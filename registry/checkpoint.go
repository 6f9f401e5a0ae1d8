package registry

import (
	"bytes"
	"container/heap"
	"fmt"
	"iter"
	"math/bits"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// What checkpoints have told, and what a new leader makes of it.
//
// A leader knows when each lease was last renewed, and takes that knowledge with
// it when it goes: its successor gives every lease its full TTL. So a lease that
// nobody renews would live on for as long as leaders change within its TTL. And
// nobody but the leader knows how old a heartbeat is.
//
// So every few seconds the leader tells, in one entry, which leases have been
// heard of since it told last: one bit for each, by the lease's number. Times are
// told in the time that leaders have lived: all their reigns, one after the other, as
// far as checkpoints tell of them, without elections and pauses, in which nobody
// could renew. That is a clock which all members read alike and nobody can set.
//
// Silence that was told is no proof: a lease may have been renewed after the
// checkpoint, and the leader may have died before the next. So it shortens
// nothing. What does is the second set that a checkpoint has: leases that were
// silent for most of their TTL are told to be overdue. From before that is
// proposed they are renewed through the log alone, like leases whose expiry is on
// its way, so that a successor which finds one overdue knows that nobody has
// renewed it, whatever it has not heard; it goes on counting where the last
// checkpoint ended. That costs entries, so a holder in time must never be overdue,
// and those who are at most as many as may expire.

// toldLeases is what the checkpoints so far have said.
type toldLeases struct {
	term   uint64        // of the last checkpoint
	reign  time.Duration // that it told of
	lived  time.Duration // all reigns as far as they were told
	leases []toldLease   // by number; nobody has 0
	free   *numberHeap   // numbers that nobody has any more, and some that are taken; nil where none are given out
	late   int           // leases that are overdue

	stretch, honoured uint32 // see stretch.go
}

// A toldLease is what is known of the lease that has the number.
type toldLease struct {
	generation Revision // 0 = nobody has the number
	heard      uint32   // the time that leaders had lived when it was last heard of, in toldTick, and overdueBit; 0 = not told yet
	heardAt    uint32   // the same by the clock: Unix seconds
}

const (
	toldTick   = expiryTick // a lease is never told to be silent for longer than it is
	overdueBit = 1 << 31

	// leaseNumberMax is above what the smallest free number can come to.
	leaseNumberMax = 1 << 27

	// toldRecordLeases is how many numbers one record of the engine tells of.
	toldRecordLeases = 1024
)

func newTold() *toldLeases { return &toldLeases{leases: make([]toldLease, 1), free: &numberHeap{}} }

// A checkpoint is a command that counts, with the time of its entry.
type checkpoint struct {
	command *recordv1.Checkpoint
	at      int64 // Unix ms
}

// number gives out the smallest number that nobody has, so that every member
// gives the same, also one that has read its state from disk.
func (t *toldLeases) number() uint32 {
	for t.free.Len() > 0 {
		if n := heap.Pop(t.free).(uint32); t.leases[n].generation == 0 {
			return n
		}
	}
	return uint32(len(t.leases))
}

// put follows an instance: what was told of an earlier generation of its lease is void.
func (t *toldLeases) put(i *Instance) {
	if i.Number == 0 {
		return // from before there were numbers
	}
	for n := uint32(len(t.leases)); n <= i.Number; n++ {
		if n < i.Number {
			t.release(n)
		}
		t.leases = append(t.leases, toldLease{})
	}
	if one := &t.leases[i.Number]; one.generation != i.Lease {
		t.set(one, toldLease{generation: i.Lease})
	}
}

func (t *toldLeases) remove(i *Instance) {
	if i.Number != 0 {
		t.set(&t.leases[i.Number], toldLease{})
		t.release(i.Number)
	}
}

func (t *toldLeases) release(number uint32) {
	if t.free != nil {
		heap.Push(t.free, number)
	}
}

func (t *toldLeases) set(one *toldLease, to toldLease) {
	if one.overdue() {
		t.late--
	}
	if to.overdue() {
		t.late++
	}
	*one = to
}

// of is what was told of an instance's lease.
func (t *toldLeases) of(i *Instance) toldLease {
	if int(i.Number) >= len(t.leases) || t.leases[i.Number].generation != i.Lease {
		return toldLease{}
	}
	return t.leases[i.Number]
}

func (l toldLease) overdue() bool { return l.heard&overdueBit != 0 }

// silent is for how long leaders have told of the lease and not heard of it.
func (t *toldLeases) silent(l toldLease) time.Duration {
	if l.heard == 0 {
		return 0
	}
	return max(0, t.lived-time.Duration(l.heard&^overdueBit)*toldTick)
}

// toldTicks is a time that leaders have lived, rounded up.
func toldTicks(lived time.Duration) uint32 { return uint32(lived/toldTick) + 1 }

// apply follows a checkpoint.
func (t *toldLeases) apply(c *checkpoint) {
	reign := time.Duration(c.command.GetReignMs()) * time.Millisecond
	if c.command.GetTerm() != t.term {
		t.term, t.reign = c.command.GetTerm(), 0
	}
	if reign > t.reign {
		t.lived += reign - t.reign
		t.reign = reign
	}
	t.stretch, t.honoured = c.command.GetStretch(), c.command.GetHonoured()
	for n := range numbersOf(c.command.GetHeard()) {
		one := t.asOf(n, c)
		if one == nil || one.overdue() {
			continue
		}
		if one.heard != 0 { // else it is the registration or renewal that the log has
			one.heardAt = uint32(c.at / 1000)
		}
		one.heard = toldTicks(t.lived)
	}
	for n := range numbersOf(c.command.GetOverdue()) {
		if one := t.asOf(n, c); one != nil && !one.overdue() {
			t.set(one, toldLease{generation: one.generation, heard: t.overdueFrom(one) | overdueBit, heardAt: one.heardAt})
		}
	}
}

// overdueFrom is since when a lease has certainly been silent: at most since its
// last leader began, since what came just before that nobody can know.
func (t *toldLeases) overdueFrom(one *toldLease) uint32 {
	if one.heard == 0 {
		return toldTicks(t.lived)
	}
	return max(one.heard, toldTicks(t.lived-t.reign))
}

// asOf is the lease that the proposer of a checkpoint meant by a number, or nil.
func (t *toldLeases) asOf(number uint32, c *checkpoint) *toldLease {
	if int(number) >= len(t.leases) {
		return nil
	}
	one := &t.leases[number]
	if one.generation == 0 || uint64(one.generation) > c.command.GetAsOf() && !mutant("checkpoint_of_any_generation") {
		return nil
	}
	return one
}

// checkpoint is the command; it says nothing when its leader has been deposed.
func (t *step) checkpoint(command *recordv1.Checkpoint) {
	if command.GetTerm() != t.entry.Term {
		return
	}
	t.change(change{op: opCheckpoint, silent: true, checkpoint: &checkpoint{command: command, at: t.entry.Time}})
	said := t.state.told
	t.batch.Set(storage.CheckpointClockKey(), encode(&recordv1.ToldClockRecord{
		Format: formatMax, Term: said.term, ReignMs: said.reign.Milliseconds(), LivedMs: said.lived.Milliseconds(),
		Stretch: said.stretch, Honoured: said.honoured,
	}))
	for at := range recordsOf(command.GetHeard(), command.GetOverdue()) {
		t.batch.Set(storage.CheckpointKey(at), said.record(at, t.entry.Index))
	}
}

// recordsOf are the records that tell of the numbers, each once.
func recordsOf(sets ...[]*recordv1.LeaseNumbers) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		seen := make(map[uint32]struct{})
		for _, set := range sets {
			for n := range numbersOf(set) {
				at := n / toldRecordLeases
				if _, again := seen[at]; again {
					continue
				}
				seen[at] = struct{}{}
				if !yield(at) {
					return
				}
			}
		}
	}
}

// record is what the engine keeps of a range of numbers.
func (t *toldLeases) record(at uint32, revision Revision) []byte {
	from := min(int(at)*toldRecordLeases, len(t.leases))
	rows := t.leases[from:min(from+toldRecordLeases, len(t.leases))]
	for len(rows) > 0 && rows[len(rows)-1].heard == 0 { // equal members may have had numbers of different size
		rows = rows[:len(rows)-1]
	}
	record := &recordv1.ToldRecord{Format: formatMax, Revision: uint64(revision)}
	for _, one := range rows {
		record.Heard = append(record.Heard, one.heard)
		record.HeardAt = append(record.HeardAt, one.heardAt)
	}
	return encode(record)
}

// loadTold reads back what checkpoints have said of the instances that were loaded.
func (m *Machine) loadTold(into ...*toldLeases) error {
	return m.scan(storage.CheckpointPrefix, 1, func(name [][]byte, value []byte) error {
		if bytes.Equal(name[0], []byte(storage.CheckpointClock)) {
			return loadToldClock(value, into)
		}
		at, err := strconv.ParseUint(string(name[0]), 16, 32)
		if err != nil {
			return fmt.Errorf("checkpoints %q have no number: %w", name[0], err)
		}
		return loadToldRecord(uint32(at), value, into)
	})
}

func loadToldClock(value []byte, into []*toldLeases) error {
	var record recordv1.ToldClockRecord
	if err := decodeRecord(value, &record, "the clock of checkpoints"); err != nil {
		return err
	}
	for _, t := range into {
		t.term, t.reign = record.GetTerm(), time.Duration(record.GetReignMs())*time.Millisecond
		t.lived = time.Duration(record.GetLivedMs()) * time.Millisecond
		t.stretch, t.honoured = record.GetStretch(), record.GetHonoured()
	}
	return nil
}

// loadToldRecord leaves out the leases that are newer than the record: it tells
// of others that had their numbers.
func loadToldRecord(at uint32, value []byte, into []*toldLeases) error {
	var record recordv1.ToldRecord
	if err := decodeRecord(value, &record, fmt.Sprintf("checkpoints %d", at)); err != nil {
		return err
	}
	heard, heardAt := record.GetHeard(), record.GetHeardAt()
	if len(heard) != len(heardAt) || len(heard) > toldRecordLeases {
		return fmt.Errorf("checkpoints %d tell of %d leases at %d times, of at most %d: they are damaged", at, len(heard), len(heardAt), toldRecordLeases)
	}
	for n := range heard {
		number := int(at)*toldRecordLeases + n
		if heard[n] == 0 && heardAt[n] != 0 {
			return fmt.Errorf("checkpoints %d tell that nobody has heard of lease %d, and when that was (%d): they are damaged", at, number, heardAt[n])
		}
		for _, t := range into {
			if number >= len(t.leases) {
				return nil
			}
			if one := &t.leases[number]; one.generation != 0 && one.generation <= Revision(record.GetRevision()) {
				t.set(one, toldLease{generation: one.generation, heard: heard[n], heardAt: heardAt[n]})
			}
		}
	}
	return nil
}

func decodeRecord(value []byte, into interface {
	proto.Message
	GetFormat() uint32
}, what string) error {
	if err := proto.Unmarshal(value, into); err != nil {
		return fmt.Errorf("decode %s: %w", what, err)
	}
	if problem := formatProblem(into.GetFormat()); problem != "" {
		return fmt.Errorf("%s %s", what, problem)
	}
	return nil
}

// LastHeartbeats are the times at which the instances were last heard of, in Unix
// ms: the last renewal in the log, or the last that a checkpoint told of, whose time
// is the checkpoint's.
func (m *Machine) LastHeartbeats(instances []*Instance) []int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	at := make([]int64, len(instances))
	for n, i := range instances {
		at[n] = max(i.LastHeartbeat, int64(m.published.told.of(i).heardAt)*1000)
	}
	return at
}

// numbersOf are the numbers in sets of leases, as they stand there.
func numbersOf(sets []*recordv1.LeaseNumbers) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for _, set := range sets {
			for at, b := range set.GetBits() {
				for ; b != 0; b &= b - 1 {
					if !yield(set.GetFirst() + uint32(at)*8 + uint32(bits.TrailingZeros8(b))) {
						return
					}
				}
			}
		}
	}
}

// A numberHeap is a heap of numbers.
type numberHeap []uint32

func (h numberHeap) Len() int           { return len(h) }
func (h numberHeap) Less(a, b int) bool { return h[a] < h[b] }
func (h numberHeap) Swap(a, b int)      { h[a], h[b] = h[b], h[a] }

// Push is for package heap.
func (h *numberHeap) Push(x any) { *h = append(*h, x.(uint32)) }

// Pop is for package heap.
func (h *numberHeap) Pop() any {
	last := len(*h) - 1
	n := (*h)[last]
	*h = (*h)[:last]
	return n
}
