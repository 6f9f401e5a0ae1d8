package crashfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Mode is what a crash does to what was not synced.
type Mode int

const (
	LoseUnsynced Mode = iota // all of it is gone
	KeepAll                  // all of it is there
	Random                   // any part of it is there, as the seed says
	Journal                  // as Random, but the changes of names that are there are the first so many
	TearLast                 // all is there, but each file's last write is cut at a sector, as the seed says
	TearAt                   // as TearLast, after Sectors sectors
)

// sectorBytes is what a disk writes whole or not at all.
const sectorBytes = 512

// Loss says what a crash leaves.
type Loss struct {
	Seed    uint64
	Mode    Mode
	Sectors int // for TearAt: how many sectors of each last write are left, all when it has no more
	// Journaled is for Random: below this directory the changes of names that are
	// there are the first so many, as in a Journal crash. "" is none.
	Journaled string
}

// dice are those for one node; those for names have 0.
func (l Loss) dice(id uint64) *rand.Rand { return rand.New(rand.NewPCG(l.Seed, id)) }

// oddsOf is the denominator of what is kept in one file: for each another
// numerator from 1 to oddsOf - 1, so that there are crashes that keep nearly
// all and ones that keep next to nothing.
const oddsOf = 8

func odds(dice *rand.Rand) int { return 1 + dice.IntN(oddsOf-1) }

func coin(dice *rand.Rand) bool { return dice.IntN(2) == 0 }

// Crash returns what a power cut at this moment leaves, all of it durable,
// without hooks, with the same space, and with a trace of its own. The FS itself
// goes on, and so does what is open in it.
//
// What it costs depends on the number of files and the bytes that were not
// synced, not on the bytes that were.
func (f *FS) Crash(l Loss) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &crash{loss: l, names: f.namesAfter(l), copies: map[*node]*node{}}
	c.left = &FS{made: f.made, space: f.space}
	c.left.root = c.copy(f.root)
	return c.left
}

// Tears is how many sectors the longest last unsynced write of a file touches:
// TearAt with each number of Sectors below it makes all torn writes there are.
func (f *FS) Tears() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.root.tears()
}

func (n *node) tears() int {
	most := 0
	if len(n.unsynced) > 0 {
		most = n.unsynced[len(n.unsynced)-1].sectors()
	}
	for _, child := range n.names {
		most = max(most, child.tears())
	}
	return most
}

// namesAfter are the names that are left.
func (f *FS) namesAfter(l Loss) view {
	left := map[*node]map[string]*node{}
	own := func(dir *node) map[string]*node {
		if left[dir] == nil {
			left[dir] = maps.Clone(dir.durable)
		}
		return left[dir]
	}
	keeps := l.keeps(f.changes)
	for i, c := range f.changes {
		if keeps(i) {
			c.apply(own)
		}
	}
	return func(dir *node) map[string]*node {
		if names, ok := left[dir]; ok {
			return names
		}
		return dir.durable
	}
}

// keeps tells which of the changes of names are kept.
func (l Loss) keeps(changes []change) func(int) bool {
	dice := l.dice(0)
	switch l.Mode {
	case LoseUnsynced:
		return func(int) bool { return false }
	case Random:
		kept, first := odds(dice), 0
		if l.Journaled != "" {
			first = dice.IntN(len(changes) + 1)
		}
		return func(i int) bool {
			if l.Journaled != "" && changes[i].below(clean(l.Journaled)) {
				return i < first
			}
			return dice.IntN(oddsOf) < kept
		}
	case Journal:
		first := dice.IntN(len(changes) + 1)
		return func(i int) bool { return i < first }
	}
	return func(int) bool { return true }
}

// crash copies what is left.
type crash struct {
	loss   Loss
	names  view
	copies map[*node]*node
	left   *FS
}

func (c *crash) copy(n *node) *node {
	if done := c.copies[n]; done != nil {
		done.links++ // one more name of the same file
		return done
	}
	left := &node{id: n.id, dir: n.dir, links: 1, changed: n.changed}
	c.copies[n] = left
	if n.dir {
		c.copyNames(n, left)
		return left
	}
	left.now = n.left(c.loss)
	left.synced = left.now.share()
	if left.reserved = n.reservedSynced; c.loss.Mode == KeepAll {
		left.reserved = n.reserved
	}
	left.reservedSynced = left.reserved
	c.left.used += left.room()
	return left
}

func (c *crash) copyNames(n, left *node) {
	names := c.names(n)
	left.names = make(map[string]*node, len(names))
	for _, base := range slices.Sorted(maps.Keys(names)) {
		child := c.copy(names[base])
		child.in = place{left, base}
		left.names[base] = child
	}
	left.durable = maps.Clone(left.names)
}

// left is what a file holds after a crash.
func (n *node) left(l Loss) content {
	switch {
	case l.Mode == LoseUnsynced || len(n.unsynced) == 0:
		return n.synced.share()
	case l.Mode == KeepAll && !n.forgotten:
		return n.now.share()
	}
	left, dice := n.synced.share(), l.dice(n.id)
	kept := odds(dice)
	for i, w := range n.unsynced {
		switch last := i == len(n.unsynced)-1; {
		case l.Mode == Random || l.Mode == Journal:
			w.scatter(&left, dice, kept)
		case l.Mode == TearLast && last:
			w.cut(&left, dice.IntN(w.sectors()))
		case l.Mode == TearAt && last:
			w.cut(&left, l.Sectors)
		default:
			left.writeAt(w.data, w.offset)
		}
	}
	return left
}

// sectors is how many sectors of the file the write touches.
func (w write) sectors() int {
	return int((w.end()-1)/sectorBytes - w.offset/sectorBytes + 1)
}

// sector is the part of the write in one of them.
func (w write) sector(i int) write {
	first := (w.offset/sectorBytes + int64(i)) * sectorBytes
	from, to := max(first, w.offset), min(first+sectorBytes, w.end())
	return write{from, w.data[from-w.offset : to-w.offset]}
}

// cut keeps the first sectors.
func (w write) cut(left *content, sectors int) {
	for i := range min(sectors, w.sectors()) {
		s := w.sector(i)
		left.writeAt(s.data, s.offset)
	}
}

// scatter keeps all, or nothing, or some sectors, and sometimes the length.
func (w write) scatter(left *content, dice *rand.Rand, kept int) {
	if dice.IntN(oddsOf) < kept {
		left.writeAt(w.data, w.offset)
		return
	}
	if coin(dice) {
		for i := range w.sectors() {
			if s := w.sector(i); coin(dice) {
				left.writeAt(s.data, s.offset)
			}
		}
	}
	if coin(dice) {
		left.extend(w.end())
	}
}
