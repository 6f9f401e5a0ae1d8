package crashfs

import (
	"path"
	"slices"
	"time"
)

// node is a file or a directory, apart from its names. FS.mu guards it.
type node struct {
	id      uint64 // in the order of making; kept by a crash
	dir     bool
	in      place // its newest name, for the path
	links   int   // names that can be seen
	handles int   // that are open
	locked  bool
	changed int // the operations done before its last change

	// A directory's. The changes that lie between the two are in FS.changes.
	names   map[string]*node // what can be seen
	durable map[string]*node

	// A file's.
	now       content // what can be read
	synced    content // what is durable
	unsynced  []write // what lies between the two, in order, unless forgotten
	forgotten bool    // a failed sync has dropped something: now is more than synced and unsynced
	reserved  int64   // up to where room was preallocated
	reservedSynced,
	unsyncedBytes int64
}

// place is a name in a directory.
type place struct {
	dir  *node
	base string
}

// write is one write that was not synced.
type write struct {
	offset int64
	data   []byte
}

func (w write) end() int64 { return w.offset + int64(len(w.data)) }

func newDir(id uint64) *node {
	return &node{id: id, dir: true, names: map[string]*node{}, durable: map[string]*node{}}
}

// path is the node's newest name from the root on.
func (n *node) path() string {
	if n.in.dir == nil {
		return "."
	}
	return path.Join(n.in.dir.path(), n.in.base)
}

// top is the root.
func (n *node) top() *node {
	for n.in.dir != nil {
		n = n.in.dir
	}
	return n
}

// room is the bytes that a file takes.
func (n *node) room() int64 { return max(n.now.size, n.reserved) }

// write changes what can be read and notes what is to sync.
func (n *node) write(p []byte, offset int64) {
	n.unsynced = append(n.unsynced, write{offset, slices.Clone(p)})
	n.unsyncedBytes += int64(len(p))
	n.now.writeAt(p, offset)
}

// sync makes a file's bytes durable, but for those that a failed sync forgot.
func (n *node) sync() {
	if n.forgotten {
		for _, w := range n.unsynced {
			n.synced.writeAt(w.data, w.offset)
		}
	} else {
		n.synced = n.now.share()
	}
	n.reservedSynced = n.reserved
	n.clean()
}

// forget is a sync that failed.
func (n *node) forget() {
	n.forgotten = n.forgotten || len(n.unsynced) > 0
	n.clean()
}

func (n *node) clean() { n.unsynced, n.unsyncedBytes = nil, 0 }

// replace makes data all that is there, on the disk too.
func (n *node) replace(data []byte) {
	n.now = content{}
	n.now.writeAt(data, 0)
	n.forgotten = false
	n.sync()
}

func (n *node) modTime() time.Time { return time.Unix(int64(n.changed), 0).UTC() }
