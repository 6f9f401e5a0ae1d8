package crashfs

import (
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
)

// change is one change of names, atomic even in a crash: a new name (to), one
// less (from), or a rename (both).
type change struct {
	node     *node
	from, to place
	over     *node // what lost its name `to`
}

// view is which names of a directory are meant: those that can be seen, those
// that are durable, or those that a crash leaves.
type view func(dir *node) map[string]*node

func visible(dir *node) map[string]*node { return dir.names }
func durable(dir *node) map[string]*node { return dir.durable }

// apply makes the change in a view, unless what it needs is not there.
func (c change) apply(v view) {
	if !c.possible(v) {
		return
	}
	if c.from.dir != nil {
		delete(v(c.from.dir), c.from.base)
	}
	if c.to.dir != nil {
		v(c.to.dir)[c.to.base] = c.node
	}
}

func (c change) possible(v view) bool {
	if c.from.dir != nil && v(c.from.dir)[c.from.base] != c.node {
		return false
	}
	if c.moves() && !(holds(v, c.from.dir.top(), c.from.dir) && holds(v, c.from.dir.top(), c.to.dir)) {
		return false
	}
	if c.to.dir == nil {
		return !c.node.dir || len(v(c.node)) == 0
	}
	old := v(c.to.dir)[c.to.base]
	if old != nil && (old.dir != c.node.dir || old.dir && len(v(old)) > 0) {
		return false
	}
	return !c.node.dir || !holds(v, c.node, c.to.dir)
}

// holds tells whether a directory is another or has it below.
func holds(v view, dir, other *node) bool {
	if dir == other {
		return true
	}
	for _, n := range v(dir) {
		if n.dir && holds(v, n, other) {
			return true
		}
	}
	return false
}

// moves tells whether the change is a rename from one directory to another.
func (c change) moves() bool {
	return c.from.dir != nil && c.to.dir != nil && c.from.dir != c.to.dir
}

// below tells whether the change is one of names in a directory or below it.
func (c change) below(top string) bool {
	for _, at := range []place{c.from, c.to} {
		if at.dir == nil {
			continue
		}
		if dir := at.dir.path(); dir == top || strings.HasPrefix(dir, top+"/") {
			return true
		}
	}
	return false
}

// touches tells whether a change is one of a directory's names.
func (c change) touches(dir *node) bool { return c.from.dir == dir || c.to.dir == dir }

// change makes a change that can be seen and is not durable. f.mu is held.
func (f *FS) change(c change) {
	if c.to.dir != nil {
		c.over = c.to.dir.names[c.to.base]
		c.node.in = c.to
	}
	c.apply(visible)
	f.changes = append(f.changes, c)
	for _, at := range []place{c.from, c.to} {
		if at.dir != nil {
			at.dir.changed = len(f.story)
		}
	}
	if c.from.dir == nil {
		c.node.links++
	}
	if c.to.dir == nil {
		c.node.links--
	}
	f.free(c.node)
	if c.over != nil {
		c.over.links--
		f.free(c.over)
	}
}

// free gives back the room of what has no name and is not open.
func (f *FS) free(n *node) {
	if n.links == 0 && n.handles == 0 {
		f.used -= n.room()
	}
}

// syncNames makes the changes of a directory's names durable, and what they need.
func (f *FS) syncNames(dir *node) {
	needed := f.needed(dir)
	rest := f.changes[:0:0]
	for i, c := range f.changes {
		if needed[i] {
			c.apply(durable)
		} else {
			rest = append(rest, c)
		}
	}
	f.changes = rest
}

// needed marks the changes of a directory's names and those before them that
// they build on.
func (f *FS) needed(dir *node) []bool {
	n := needs{names: map[place]bool{}, in: map[*node]bool{dir: true}, of: map[*node]bool{}}
	marks := make([]bool, len(f.changes))
	for i, c := range slices.Backward(f.changes) {
		if marks[i] = n.are(c); marks[i] {
			n.add(c)
		}
	}
	return marks
}

// needs is what changes build on, and so which of the ones before go with them.
type needs struct {
	names map[place]bool // of these names
	in    map[*node]bool // of all names in these directories
	of    map[*node]bool // that give these directories their names
}

func (n needs) are(c change) bool {
	for _, at := range []place{c.from, c.to} {
		if at.dir != nil && (n.in[at.dir] || n.names[at]) {
			return true
		}
	}
	return n.of[c.node]
}

func (n needs) add(c change) {
	n.names[c.from], n.names[c.to] = true, true
	if c.to.dir == nil {
		n.in[c.node] = true // a directory goes when it is empty
	}
	if c.over != nil {
		n.in[c.over] = true
	}
	if c.moves() || n.of[c.node] {
		// A move is out of something and into something that is there itself.
		n.of[c.from.dir], n.of[c.to.dir] = true, true
	}
}

// forgetNames is a sync of a directory that failed.
func (f *FS) forgetNames(dir *node) {
	f.changes = slices.DeleteFunc(f.changes, func(c change) bool { return c.touches(dir) })
}

// clean is a path from the root on, without a leading slash.
func clean(name string) string {
	name = path.Clean("/" + name)
	if name == "/" {
		return "."
	}
	return name[1:]
}

// find is the node that a path names. f.mu is held, as for all below.
func (f *FS) find(name string) (*node, error) {
	if name == "" {
		return nil, syscall.ENOENT
	}
	at := f.root
	if name = clean(name); name == "." {
		return at, nil
	}
	for _, base := range strings.Split(name, "/") {
		if !at.dir {
			return nil, syscall.ENOTDIR
		}
		if at = at.names[base]; at == nil {
			return nil, syscall.ENOENT
		}
	}
	return at, nil
}

// place is where a path's last name is or would be, and the node if it is there.
func (f *FS) place(name string) (place, *node, error) {
	if name == "" {
		return place{}, nil, syscall.ENOENT
	}
	if name = clean(name); name == "." {
		return place{}, nil, syscall.EBUSY
	}
	dir, err := f.find(path.Dir(name))
	if err != nil {
		return place{}, nil, err
	}
	if !dir.dir {
		return place{}, nil, syscall.ENOTDIR
	}
	at := place{dir, path.Base(name)}
	return at, dir.names[at.base], nil
}

// add makes a new file or directory.
func (f *FS) add(at place, dir bool) *node {
	f.made++
	n := &node{id: f.made}
	if dir {
		n = newDir(f.made)
	}
	n.changed = len(f.story)
	f.change(change{node: n, to: at})
	return n
}

// removeTree removes a node and all below, each name for itself.
func (f *FS) removeTree(at place, n *node) {
	for _, base := range slices.Sorted(maps.Keys(n.names)) {
		f.removeTree(place{n, base}, n.names[base])
	}
	f.change(change{node: n, from: at})
}
