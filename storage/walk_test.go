package storage

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// walked is what WalkLog tells of a log, and how it ends.
func walked(fs vfs.FS) ([]LogFrame, error) {
	var frames []LogFrame
	err := WalkLog(fs, "wal", func(f LogFrame) error { frames = append(frames, f); return nil })
	return frames, err
}

// disk is the image's files on a disk of their own.
func (im *image) disk() *vfs.MemFS {
	fs := vfs.NewMem()
	check(fs.MkdirAll("wal", 0o700))
	for name, data := range im.files {
		f, err := fs.Create("wal/"+name, vfs.WriteCategoryUnspecified)
		check(err)
		_, err = f.Write(bytes.Clone(data))
		check(errors.Join(err, f.Close()))
	}
	return fs
}

// filesIn are a folder's contents.
func filesIn(fs *vfs.MemFS, dir string) map[string]string {
	names, err := fs.List(dir)
	check(err)
	all := make(map[string]string)
	for _, name := range names {
		data, err := fs.UnsafeGetFileDataBuffer(dir + "/" + name)
		check(err)
		all[name] = string(data)
	}
	return all
}

// Every byte of a log is told of, each once and in order; what entries replaced
// is told of too. Nothing is changed, not even what was never finished.
func TestAWalkTellsEveryByte(t *testing.T) {
	fs := newImage(t, 100).disk()
	unfinished, err := fs.Create("wal/"+segmentName(9)+tempSuffix, vfs.WriteCategoryUnspecified)
	check(errors.Join(err, unfinished.Close()))
	before := filesIn(fs, "wal")
	frames, err := walked(fs)
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int64{}
	var kinds, entries []string
	for _, f := range frames {
		if f.Offset != at[f.Segment] || f.Bytes == 0 {
			t.Errorf("%s: %d bytes at %d, want them at %d", f.Segment, f.Bytes, f.Offset, at[f.Segment])
		}
		at[f.Segment] += f.Bytes
		kinds = append(kinds, string(f.Kind))
		for _, e := range f.Entries {
			entries = append(entries, fmt.Sprintf("%d/%d", e.Index, e.Term))
			if want := fmt.Sprintf("entry %d of term %d", e.Index, e.Term); string(e.Data) != want {
				t.Errorf("%q, want %q", e.Data, want)
			}
		}
	}
	for name, data := range before {
		if _, ok := segmentSequence(name); ok && at[name] != int64(len(data)) {
			t.Errorf("%d bytes of %s were told of, it has %d", at[name], name, len(data))
		}
	}
	if got, want := strings.Join(entries, " "), "2/1 3/1 4/1 5/1 6/1 7/1 8/1 8/2 9/2 10/2"; got != want {
		t.Errorf("entries %s, want %s", got, want)
	}
	for _, kind := range []LogFrameKind{LogHead, LogData, LogMark, LogSeal} {
		if !slices.Contains(kinds, string(kind)) {
			t.Errorf("no %s was told of", kind)
		}
	}
	if after := filesIn(fs, "wal"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Error("the log was changed")
	}
}

// For every flipped byte and every end of a log the walk says what opening it
// says, names the same place, and has told of all that comes before.
func TestAWalkEndsAsOpeningDoes(t *testing.T) {
	im := newImage(t, 100)
	whole, err := walked(im.disk())
	check(err)
	damages, torn := 0, 0
	compare := func(what string, fs *vfs.MemFS) {
		t.Helper()
		frames, err := walked(fs)
		log, opened := OpenLog(LogOptions{FS: fs, Dir: "wal", Base: Position{1, 1}, Salt: func() uint64 { return 5 }})
		var want, got *DamageError
		if errors.As(opened, &want) != errors.As(err, &got) || want != nil && *want != *got {
			t.Fatalf("%s: the walk ends with %v, opening with %v", what, err, opened)
		}
		if want != nil {
			damages++
			if len(frames) > 0 && !samePlaces(frames, whole[:len(frames)]) {
				t.Fatalf("%s: it told of other things before", what)
			}
			return
		}
		check(opened)
		if last := frames[len(frames)-1]; (last.Kind == LogTorn) != (log.torn > 0) || last.Kind == LogTorn && last.Bytes != log.torn {
			t.Fatalf("%s: %d bytes are torn, the walk ends with %+v", what, log.torn, last)
		} else if last.Kind == LogTorn {
			torn++
		}
		check(log.Close())
	}
	for _, name := range im.names {
		for i := range im.files[name] {
			damaged := &image{files: map[string][]byte{}}
			for n, data := range im.files {
				damaged.files[n] = bytes.Clone(data)
			}
			damaged.files[name][i] ^= 0x40
			compare(fmt.Sprintf("%s flipped at %d", name, i), damaged.disk())
			damaged.files[name] = im.files[name][:i]
			compare(fmt.Sprintf("%s cut at %d", name, i), damaged.disk())
		}
		fs := im.disk()
		check(fs.Remove("wal/" + name))
		if name != im.last() && name != im.names[0] {
			compare(name+" removed", fs)
		}
	}
	if damages == 0 || torn == 0 {
		t.Errorf("%d were damaged and %d torn, want some of each", damages, torn)
	}
}

// samePlaces compares what frames are and where.
func samePlaces(a, b []LogFrame) bool {
	return slices.EqualFunc(a, b, func(x, y LogFrame) bool { return x.Segment == y.Segment && x.Offset == y.Offset && x.Kind == y.Kind })
}

// The caller's error ends the walk as it is; a folder that is not there is told.
func TestAWalkEndsWithItsCaller(t *testing.T) {
	enough := errors.New("enough")
	if err := WalkLog(newImage(t, 100).disk(), "wal", func(LogFrame) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	if _, err := walked(vfs.NewMem()); err == nil {
		t.Error("a folder that is not there was walked")
	}
}
