package simulate

import (
	"time"

	"github.com/stellmap/stellmap/storage/crashfs"
)

// faults are what goes wrong, each as often as its weight says.
type faults struct {
	world *world
	until time.Duration
	fired map[string]int
}

func newFaults(w *world) faults { return faults{world: w, fired: make(map[string]int)} }

func (f *faults) count(kind string) { f.fired[kind]++ }

// fault is one kind. It does nothing, and returns false, where it has nothing to
// happen to.
type fault struct {
	name   string
	weight int
	do     func(w *world, m *member) bool
}

// kinds of faults that are made on purpose; those of single messages are the
// network's. All that are in allKinds have to happen.
var kinds = []fault{
	{"kill", 6, killed},
	{"power cut", 4, func(w *world, m *member) bool { return cutPower(w, m, lossModes[w.dice.IntN(len(lossModes))]) }},
	{"power cut planned", 10, planPowerCut},
	{"power cut of all", 2, cutAll},
	{"failed sync planned", 3, planFailedSync},
	{"clean restart", 4, restart},
	{"pause", 8, pauseOne},
	{"pause of the leader", 5, func(w *world, m *member) bool { return w.leader() != nil && pauseOne(w, w.leader()) }},
	{"pause of many", 3, pauseMany},
	{"partition of one", 8, func(w *world, m *member) bool { return w.isolate([]*member{m}, true, true) }},
	{"partition of the leader", 8, func(w *world, m *member) bool {
		return w.leader() != nil && w.isolate([]*member{w.leader()}, true, true)
	}},
	{"partition in two", 5, partition},
	{"partition with a bridge", 3, bridge},
	{"partition in a ring", 3, ring},
	{"one-way cut", 6, oneWay},
	{"cut of one way of the leader", 5, oneWayLeader},
	{"slow disk", 5, slowDisk},
	{"slow disks of many", 3, slowDisks},
	{"slow network", 4, slowNetwork},
	{"lossy network", 4, lossyNetwork},
	{"wall clock jumps", 4, jumpWall},
	{"lease clock jumps", 4, jumpMono},
	{"emptied disk", 3, emptyDisk},
}

// others are what happens besides, and has to happen as well.
var others = []string{
	"message lost", "message repeated", "message delayed", "message cut off", "power cut at an operation", "power cut in a recovery",
	"failed sync", "request tried again", "emptied member ends",
	"snapshot brought", "snapshot installed", "snapshot broken off", "snapshot resumed", "watcher connected over an install", "watcher at a member that has installed", "member added", "member promoted", "member removed", "member replaced", "leadership handed over", "removed member ends",
}

var lossModes = []crashfs.Mode{crashfs.LoseUnsynced, crashfs.KeepAll, crashfs.Random, crashfs.Journal, crashfs.TearLast}

// begin has faults happen for a while.
func (f *faults) begin(until time.Duration) {
	f.until = until
	f.next()
}

// going tells whether there are any at this time.
func (f *faults) going() bool { return f.world.now < f.until }

func (f *faults) next() {
	w := f.world
	w.after(w.between(w.FaultEvery/4, w.FaultEvery*2), func() {
		if w.now >= f.until {
			return
		}
		f.one()
		f.next()
	})
}

func (f *faults) one() {
	w, total := f.world, 0
	for _, k := range kinds {
		total += k.weight
	}
	at := w.dice.IntN(total)
	for _, k := range kinds {
		if at -= k.weight; at >= 0 {
			continue
		}
		if m := w.anyMember(); k.do(w, m) {
			f.count(k.name)
			w.note("fault " + k.name)
		}
		return
	}
}

// leader is who leads, or believes that it does; nil when nobody does.
func (w *world) leader() *member {
	var found *member
	term := uint64(0)
	for _, m := range w.members {
		if !m.up() || m.life.ended {
			continue
		}
		if s := m.life.group.Status(); s.LeaderID == m.id && s.Term > term {
			found, term = m, s.Term
		}
	}
	return found
}

func killed(w *world, m *member) bool {
	return cutPowerAs(w, m, crashfs.KeepAll, "is killed")
}

func cutPower(w *world, m *member, mode crashfs.Mode) bool {
	return cutPowerAs(w, m, mode, "loses power")
}

func cutPowerAs(w *world, m *member, mode crashfs.Mode, how string) bool {
	if !m.up() || m.life.ended {
		return false
	}
	w.tell("%v %s (%d)", m, how, mode)
	m.powerCut(mode)
	return true
}

// planPowerCut cuts the power after one of the next operations on the disk, be
// it that the member is at work or starting.
func planPowerCut(w *world, m *member) bool {
	if m.cutAt != 0 || m.asks() {
		return false
	}
	m.cutAt, m.cutLoss = m.ops+1+w.dice.IntN(40), lossModes[w.dice.IntN(len(lossModes))]
	if w.chance(0.4) && m.up() && !m.life.ended { // in the start that follows
		m.powerCut(m.cutLoss)
		m.bury()
		m.cutAt, m.cutLoss = 1+w.dice.IntN(12), lossModes[w.dice.IntN(len(lossModes))]
	}
	return true
}

func cutAll(w *world, _ *member) bool {
	any := false
	for _, m := range w.members {
		any = cutPower(w, m, lossModes[w.dice.IntN(len(lossModes))]) || any
	}
	return any
}

func planFailedSync(w *world, m *member) bool {
	if !m.up() || m.failSyncs != 0 {
		return false
	}
	m.failSyncs = 1 + w.dice.IntN(20)
	return true
}

// emptyDisk takes all that a member has, once in a schedule, and where nothing
// else of the membership changes: it comes back under its id, is refused by all
// who know it, and is one voter less for good.
func emptyDisk(w *world, m *member) bool {
	if w.Changes || w.Size < 3 || w.emptied || !m.up() || m.life.ended {
		return false
	}
	for _, o := range w.members { // before that it is as good as new
		if o != m && (!o.up() || !o.life.group.Known(m.id, m.life.uuid)) {
			return false
		}
	}
	w.tell("%v loses its disks", m)
	m.powerCut(crashfs.KeepAll)
	m.bury()
	m.disk, m.state = emptyDisks()
	m.emptied, w.emptied = true, true
	delete(w.checks.terms, m.id)
	return true
}

func restart(w *world, m *member) bool {
	if !m.up() || m.life.stopping || m.life.ended {
		return false
	}
	w.tell("%v is told to stop", m)
	m.life.stopping = true
	m.life.stop()
	return true
}

func pauseOne(w *world, m *member) bool {
	if !m.up() || m.life.paused {
		return false
	}
	l, d := m.life, w.between(20*time.Millisecond, 4*time.Second)
	l.paused = true
	w.tell("%v is paused for %v", m, d)
	w.after(d, func() { l.goOn() })
	return true
}

// goOn ends a pause. What has come meanwhile waits.
func (l *life) goOn() {
	if !l.paused {
		return
	}
	l.paused = false
	held := l.held
	l.held = nil
	for _, do := range held {
		if !l.gone() {
			do()
		}
	}
}

func pauseMany(w *world, _ *member) bool {
	n := 0
	for _, m := range w.members {
		if w.chance(0.6) && pauseOne(w, m) {
			n++
		}
	}
	return n > 1
}

// setCut cuts ways, and heals them after a while.
func (w *world) setCut(ways [][2]uint64) bool {
	var cut [][2]uint64
	for _, way := range ways {
		if !w.network.cut[way] {
			w.network.cut[way] = true
			cut = append(cut, way)
		}
	}
	if len(cut) == 0 {
		return false
	}
	d := w.between(50*time.Millisecond, 4*time.Second)
	w.tell("the network is cut: %v, for %v", cut, d)
	w.after(d, func() {
		for _, way := range cut {
			delete(w.network.cut, way)
		}
	})
	return true
}

// isolate cuts some members off from the others, outwards or inwards or both.
func (w *world) isolate(some []*member, outwards, inwards bool) bool {
	inside := make(map[uint64]bool)
	for _, m := range some {
		inside[m.id] = true
	}
	var ways [][2]uint64
	for _, a := range w.members {
		for _, b := range w.members {
			if inside[a.id] == inside[b.id] {
				continue
			}
			if inside[a.id] && outwards || inside[b.id] && inwards {
				ways = append(ways, [2]uint64{a.id, b.id})
			}
		}
	}
	return w.setCut(ways)
}

func partition(w *world, _ *member) bool {
	var side []*member
	for _, m := range w.members {
		if w.chance(0.5) {
			side = append(side, m)
		}
	}
	return w.isolate(side, true, true)
}

// bridge leaves one member that both sides reach.
func bridge(w *world, m *member) bool {
	var ways [][2]uint64
	for _, a := range w.members {
		for _, b := range w.members {
			if a != m && b != m && a.id%2 != b.id%2 {
				ways = append(ways, [2]uint64{a.id, b.id})
			}
		}
	}
	return w.setCut(ways)
}

// ring has each member reach a majority, and no two the same one.
func ring(w *world, _ *member) bool {
	if len(w.members) < 5 {
		return false
	}
	var ways [][2]uint64
	n := uint64(len(w.members))
	for a := range n {
		for b := range n {
			if d := (b + n - a) % n; d > 1 && d < n-1 {
				ways = append(ways, [2]uint64{a + 1, b + 1})
			}
		}
	}
	return w.setCut(ways)
}

func oneWay(w *world, m *member) bool {
	outwards := w.chance(0.5)
	return w.isolate([]*member{m}, outwards, !outwards)
}

func oneWayLeader(w *world, _ *member) bool {
	m := w.leader()
	return m != nil && oneWay(w, m)
}

func slowDisk(w *world, m *member) bool {
	if m.slowDisk > 0 {
		return false
	}
	m.slowDisk = w.between(10*time.Millisecond, 500*time.Millisecond)
	lasts := w.between(100*time.Millisecond, 3*time.Second)
	if w.chance(0.3) {
		m.slowDisk, lasts = m.slowDisk*4, 2*lasts
	}
	w.tell("the disk of %v is slow: up to %v a sync, for %v", m, m.slowDisk, lasts)
	w.after(lasts, func() { m.slowDisk = 0 })
	return true
}

func slowDisks(w *world, _ *member) bool {
	n := 0
	for _, m := range w.members {
		if w.chance(0.7) && slowDisk(w, m) {
			n++
		}
	}
	return n > 1
}

func slowNetwork(w *world, _ *member) bool {
	if w.network.slow > 0 {
		return false
	}
	w.network.slow = w.between(w.Tick/4, 8*w.Tick)
	w.tell("the network is slow: %v a message", w.network.slow)
	w.after(w.between(100*time.Millisecond, 3*time.Second), func() { w.network.slow = 0 })
	return true
}

func lossyNetwork(w *world, _ *member) bool {
	if w.network.loss > 0.2 {
		return false
	}
	w.network.loss = 0.2 + w.dice.Float64()*0.3
	w.tell("the network loses %.0f %%", w.network.loss*100)
	w.after(w.between(100*time.Millisecond, 3*time.Second), func() { w.network.loss = w.network.usual })
	return true
}

// wallMax is how wrong a clock on the wall may be: less than what an instance
// that has expired is kept for.
const wallMax = 2 * time.Minute

func jumpWall(w *world, m *member) bool {
	m.wall = w.between(-wallMax, wallMax)
	w.tell("the clock on the wall of %v jumps: %v", m, m.wall)
	return true
}

// jumpMono is what a machine does that was stopped, or moved, without its clock
// knowing. A shorter jump than that of a pause could not be told from time.
func jumpMono(w *world, m *member) bool {
	d := w.between(600*time.Millisecond, 10*time.Second)
	if w.chance(0.5) {
		d = -d
	}
	m.mono += d
	w.tell("the clock of %v that leases go by jumps by %v", m, d)
	return true
}

// heal ends all faults.
func (f *faults) heal() {
	w := f.world
	f.until = w.now
	clear(w.network.cut)
	w.network.loss, w.network.usual, w.network.twice, w.network.slow = 0, 0, 0, 0
	w.tell("all faults end")
	for _, m := range w.members {
		m.slowDisk, m.cutAt = 0, 0
		if !m.broken {
			m.failSyncs = 0
		}
		if m.up() {
			m.life.goOn()
		}
		if m.down { // for how long, a fault has said
			w.after(w.between(0, time.Duration(2*w.ElectionTicks)*w.Tick), m.startAgain)
		}
	}
}
