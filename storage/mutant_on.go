//go:build mutants

package storage

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// planted is the one bug that is turned on, if any.
var planted atomic.Value

// Plant turns one bug on, and whatever was on before off. "" is none.
func Plant(name string) { planted.Store(name) }

// mutant tells whether a bug is planted.
func mutant(name string) bool { return planted.Load() == name }

// reuseLast goes on in the last segment as it is, unless it is sealed.
func (l *Log) reuseLast(end int64) (*segment, error) {
	last := l.segments[len(l.segments)-1]
	r, err := openSegment(l.o.FS, l.o.Dir, last.sequence)
	if err != nil {
		return nil, err
	}
	sealed := false
	for r.offset < end {
		f, err := r.next()
		if err != nil {
			return nil, err
		}
		sealed = f.kind == frameSeal
	}
	if err := r.close(); err != nil || sealed {
		return nil, err
	}
	file, err := l.o.FS.OpenReadWrite(l.o.FS.PathJoin(l.o.Dir, segmentName(last.sequence)), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	s := &segment{head: r.head, file: &appended{file, end}, size: end}
	return s, s.sync()
}

// appended is a file that is written at its end.
type appended struct {
	vfs.File
	end int64
}

func (f *appended) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.end)
	f.end += int64(n)
	return n, err
}
