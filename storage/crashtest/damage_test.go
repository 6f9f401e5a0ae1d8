package crashtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stellmap/stellmap/storage"
	"github.com/stellmap/stellmap/storage/crashfs"
)

// The log of a member that has stopped is changed at random: bits, bytes, holes,
// swapped sectors, ends that are missing. It is refused where anything is lost
// that a later mark of a sync covers, and what opens is what was written.
func TestADamagedLogIsRefusedOrWhole(t *testing.T) {
	seed, count := seed(), max(1, 5/slower)
	if *fullFlag {
		count = 50
	}
	t.Logf("seed %d", seed)
	ends := map[string]int{}
	for n := range count {
		if *scheduleFlag >= 0 && n != *scheduleFlag {
			continue
		}
		if f := damageSchedule(seed, n, ends); f != nil {
			t.Fatalf("schedule %d of seed %d: %v\nplay it again: go test ./storage/crashtest -run %s -full -seed=%d -schedule=%d", n, seed, f, t.Name(), seed, n)
		}
	}
	t.Logf("%d lives, damaged logs: %v", count, ends)
}

const (
	damageSteps = 60  // of each life
	damages     = 200 // to each of its logs
)

func damageSchedule(seed uint64, number int, ends map[string]int) *failure {
	random := rand.New(rand.NewPCG(seed, uint64(number)+3<<40))
	p := newPlayer(crashfs.New(), random, newTuning(random, number))
	err := p.start()
	for range damageSteps {
		if err == nil {
			err = p.step()
		}
	}
	// A start writes the end of the log anew and attests it; so does a clean end.
	attested := false
	if err == nil && random.IntN(2) == 0 {
		attested = true
		err = p.restart()
	}
	if err == nil {
		end := p.closeState
		if random.IntN(2) == 0 {
			attested, end = true, p.close
		}
		err = end()
	}
	if err != nil {
		return &failure{err, "without damage", p.disk.Trace()}
	}
	for range damages {
		what, end, err := damageOnce(p.disk, attested, random)
		if err != nil {
			return &failure{err, what, p.disk.Trace()}
		}
		ends[end]++
	}
	return nil
}

// damageOnce changes a copy and opens it.
func damageOnce(disk *crashfs.FS, attested bool, random *rand.Rand) (what, end string, err error) {
	copied := disk.Crash(crashfs.Loss{Mode: crashfs.KeepAll})
	names, err := copied.List("data/wal")
	if err != nil {
		return "", "", err
	}
	var log []storage.LogFrame
	if err := storage.WalkLog(copied, "data/wal", func(f storage.LogFrame) error {
		f.Entries = slices.Clone(f.Entries)
		log = append(log, f)
		return nil
	}); err != nil {
		return "an undamaged log", "", err
	}
	name := names[random.IntN(len(names))]
	if random.IntN(2) == 0 {
		name = names[len(names)-1]
	}
	before, err := copied.ReadFile("data/wal/" + name)
	if err != nil {
		return "", "", err
	}
	after, what := changed(before, random)
	if bytes.Equal(before, after) {
		return what, "the same", nil
	}
	if err := copied.WriteFile("data/wal/"+name, after); err != nil {
		return "", "", err
	}
	what = fmt.Sprintf("%s of %s", what, name)
	end, err = judge(copied, log, attested, name, before, after)
	return what, end, err
}

// changed is a file after one kind of damage.
func changed(before []byte, random *rand.Rand) (after []byte, what string) {
	after = bytes.Clone(before)
	at := random.IntN(len(after))
	switch random.IntN(6) {
	case 0, 1:
		after[at] ^= 1 << random.IntN(8)
		return after, fmt.Sprintf("a bit of byte %d", at)
	case 2:
		for range 1 + random.IntN(8) {
			after[random.IntN(len(after))] ^= byte(random.Uint32())
		}
		return after, "some bytes"
	case 3:
		to := min(len(after), at+1+random.IntN(1024))
		clear(after[at:to])
		return after, fmt.Sprintf("zeros from %d to %d", at, to)
	case 4:
		const sector = 512
		a, b := at/sector*sector, random.IntN(len(after))/sector*sector
		copy(after[a:min(a+sector, len(after))], before[b:])
		copy(after[b:min(b+sector, len(after))], before[a:])
		return after, fmt.Sprintf("sectors %d and %d", a, b)
	}
	return after[:at], fmt.Sprintf("the end from %d on", at)
}

// judge opens the damaged log and tells whether what comes of it is right. In
// one that is attested no entry may be lost, as long as its very end is whole.
func judge(disk *crashfs.FS, log []storage.LogFrame, attested bool, name string, before, after []byte) (string, error) {
	lost, mustRefuse := firstLost(log, attested, name, before, after)
	l, err := openLog(disk)
	var damage *storage.DamageError
	switch {
	case errors.As(err, &damage):
		return "refused", nil
	case err != nil:
		return "", err
	case mustRefuse:
		return "", errors.Join(fmt.Errorf("the frame at %d is damaged, which a later one knows to be synced, and the log opens", log[lost].Offset), l.Close())
	}
	c := l.Load()
	got, err := read(l, c.First, c.Last+1)
	if err = errors.Join(err, l.Close()); err != nil {
		return "", err
	}
	want, hard := contents(log[:lost])
	if c.HardState != hard {
		return "", fmt.Errorf("the hard state is %v, not %v", c.HardState, hard)
	}
	return "cut at the end", differInEntries(got, want)
}

// openLog opens the log as one of a member whose state is as old as may be, so
// that the log alone has to notice.
func openLog(disk *crashfs.FS) (*storage.Log, error) {
	var first uint64
	err := storage.WalkLog(disk, "data/wal", func(f storage.LogFrame) error {
		if f.Kind == storage.LogHead && first == 0 {
			first = f.Before.Index
		}
		return nil
	})
	if first == 0 {
		return nil, err
	}
	return storage.OpenLog(storage.LogOptions{FS: disk, Dir: "data/wal", Base: base, Applied: first, Salt: rand.Uint64})
}

// firstLost is the number of the first frame that is not what it was, and
// whether the log has to be refused for it.
func firstLost(log []storage.LogFrame, attested bool, name string, before, after []byte) (int, bool) {
	same := func(f storage.LogFrame) bool {
		return f.Offset+f.Bytes <= int64(len(after)) && bytes.Equal(before[f.Offset:f.Offset+f.Bytes], after[f.Offset:f.Offset+f.Bytes])
	}
	last := log[len(log)-1].Segment
	for i, f := range log {
		if f.Segment != name || f.Kind == storage.LogTorn || same(f) {
			continue
		}
		refuse := name != last || f.Kind == storage.LogHead || attested && f.Kind == storage.LogData && same(log[len(log)-1])
		for _, later := range log[i+1:] {
			refuse = refuse || later.Kind != storage.LogTorn && same(later) && later.Synced > f.Offset
		}
		return i, refuse
	}
	return len(log), false
}

// contents are what frames make.
func contents(log []storage.LogFrame) ([]storage.Entry, storage.HardState) {
	var entries []storage.Entry
	var hard storage.HardState
	first := uint64(0)
	replace := func(from uint64) {
		if first == 0 || from < first {
			first, entries = from, nil
		}
		entries = entries[:min(uint64(len(entries)), from-first)]
	}
	for _, f := range log {
		if f.Kind == storage.LogHead {
			replace(f.Before.Index + 1)
		}
		if f.Hard != nil {
			hard = *f.Hard
		}
		if len(f.Entries) > 0 {
			replace(f.Entries[0].Index)
			entries = append(entries, f.Entries...)
		}
	}
	return entries, hard
}
