package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// image is a small log as it lies on the disk, and what it means frame by frame.
type image struct {
	files  map[string][]byte
	names  []string // in order
	frames []imageFrame
}

// imageFrame is a frame of the last segment.
type imageFrame struct {
	offset, end, synced int64
	before              model // what the log holds when it ends here
}

// newImage is a log that is small enough for all that can be done to it.
func newImage(t *testing.T, salt uint64) *image {
	t.Helper()
	return newImageOf(t, salt, 0)
}

// newImageOf writes three segments; the last ends with three frames that nothing
// attests: a mark and two that were not synced. Each entry has so many bytes, 0
// is a text; there are ten, four in the first segment and three in each other.
func newImageOf(t *testing.T, salt uint64, entryBytes int) *image {
	t.Helper()
	fs := vfs.NewMem()
	log, err := OpenLog(LogOptions{
		FS: fs, Dir: "wal", Base: Position{1, 1}, Salt: func() uint64 { salt++; return salt },
		SegmentBytes: segmentHeadBytes + 3*frameSize(max(entryBytes, 20)+10) + 24,
	})
	if err != nil {
		t.Fatal(err)
	}
	m := model{base: Position{1, 1}}
	after := map[int64]model{} // what each frame of the active segment makes of the log
	add := func(index, term uint64, hard *HardState) {
		data := fmt.Appendf(nil, "entry %d of term %d", index, term)
		for len(data) < entryBytes {
			data = append(data, byte(index*uint64(len(data))))
		}
		entries := []Entry{{index, term, 0, data}}
		check(log.Append(entries, hard))
		m = m.append(entries, hard)
		after[log.active.size] = m
	}
	for i := uint64(2); i < 9; i++ {
		add(i, 1, &HardState{Term: 1, Vote: i % 3, Commit: i - 1})
		check(log.Sync())
	}
	add(8, 2, &HardState{Term: 2, Vote: 1, Commit: 7})
	check(errors.Join(log.Sync(), log.Mark()))
	after[log.active.size] = m
	add(9, 2, nil)
	add(10, 2, nil)
	check(log.active.file.Close())
	return readImage(t, fs, after)
}

func readImage(t *testing.T, fs *vfs.MemFS, after map[int64]model) *image {
	t.Helper()
	im := &image{files: map[string][]byte{}}
	names, err := fs.List("wal")
	check(err)
	slices.Sort(names)
	im.names = names
	for _, name := range names {
		data, err := fs.UnsafeGetFileDataBuffer("wal/" + name)
		check(err)
		im.files[name] = bytes.Clone(data)
	}
	sequence, _ := segmentSequence(im.last())
	r, err := openSegment(fs, "wal", sequence)
	check(err)
	head := model{base: Position{1, 1}}
	for {
		at := r.offset
		f, err := r.next()
		if err != nil {
			break
		}
		im.frames = append(im.frames, imageFrame{offset: at, end: r.offset, synced: f.synced, before: head})
		if m, ok := after[r.offset]; ok {
			head = m
		} else {
			head = im.without(t, at)
		}
	}
	check(r.close())
	if len(names) != 3 || len(im.frames) != 5 {
		t.Fatalf("%d segments, the last with %d frames, want 3 and 5", len(names), len(im.frames))
	}
	im.frames[0].before = im.without(t, segmentHeadBytes)
	return im
}

// without is the log as it is without the last segment's frames from an offset
// on. It is asked for the first frame, which repeats the hard state.
func (im *image) without(t *testing.T, offset int64) model {
	t.Helper()
	files := maps.Clone(im.files)
	files[im.last()] = files[im.last()][:offset]
	log, err := openImage(files)
	if err != nil {
		t.Fatal(err)
	}
	m := model{base: Position{1, 1}, hard: log.Load().HardState}
	m.entries, err = log.Entries(2, log.LastIndex()+1, 1<<20)
	check(errors.Join(err, log.Close()))
	return m
}

func (im *image) last() string { return im.names[len(im.names)-1] }

// end is what the whole log holds.
func (im *image) end(t *testing.T) model {
	return im.without(t, int64(len(im.files[im.last()])))
}

// openImage opens a log with these files.
func openImage(files map[string][]byte) (*Log, error) {
	fs := vfs.NewMem()
	check(fs.MkdirAll("wal", 0o700))
	for name, data := range files {
		f, err := fs.Create("wal/"+name, vfs.WriteCategoryUnspecified)
		check(err)
		_, err = f.Write(bytes.Clone(data))
		check(errors.Join(err, f.Close()))
	}
	return OpenLog(LogOptions{FS: fs, Dir: "wal", Base: Position{1, 1}, Salt: func() uint64 { return 77 }})
}

// verdict is what opening a log has to come to.
type verdict struct {
	refused bool
	offset  int64 // of what is refused
	torn    int64
	content model
}

// judge is what has to come of a last segment whose bytes were changed: the
// first frame that is not what it was is damage when an intact one after it
// knows it to be synced, and otherwise the end of the log.
func (im *image) judge(changed []byte, whole model) verdict {
	original := im.files[im.last()]
	same := func(from, to int64) bool {
		return int64(len(changed)) >= to && bytes.Equal(changed[from:to], original[from:to])
	}
	if !same(0, segmentHeadBytes) {
		return verdict{refused: true}
	}
	for i, f := range im.frames {
		if same(f.offset, f.end) {
			continue
		}
		for _, later := range im.frames[i+1:] {
			if same(later.offset, later.end) && later.synced > f.offset {
				return verdict{refused: true, offset: f.offset}
			}
		}
		return verdict{torn: int64(len(changed)) - f.offset, content: f.before}
	}
	return verdict{torn: int64(len(changed) - len(original)), content: whole}
}

// holds opens the log with a changed last segment and compares.
func (im *image) holds(t *testing.T, changed []byte, whole model, what string) verdict {
	t.Helper()
	want := im.judge(changed, whole)
	files := maps.Clone(im.files)
	files[im.last()] = changed
	log, err := openImage(files)
	if want.refused {
		isDamage(t, err, im.last(), want.offset, what)
		return want
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if torn := log.Load().TornBytes; torn != want.torn {
		t.Fatalf("%s: %d torn bytes, want %d", what, torn, want.torn)
	}
	if err := errors.Join(want.content.differs(log), log.Close()); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return want
}

func isDamage(t *testing.T, err error, segment string, offset int64, what string) {
	t.Helper()
	var damage *DamageError
	if !errors.As(err, &damage) || damage.Segment != segment || offset >= 0 && damage.Offset != offset {
		t.Fatalf("%s: want segment %s at offset %d refused, got: %v", what, segment, offset, err)
	}
}

// A last segment that ends anywhere is a torn write: every frame that is whole
// is there, the bytes of the other are counted. Only within its header it is
// damage, since a segment gets its name when the header is on the disk.
func TestEveryEndOfTheLastSegmentIsATear(t *testing.T) {
	everyEndIsATear(t, newImage(t, 10))
	if *fullFlag {
		everyEndIsATear(t, newImageOf(t, 10, 21_840)) // 64 KiB in the last segment
	}
}

func everyEndIsATear(t *testing.T, im *image) {
	t.Helper()
	whole, original := im.end(t), im.files[im.last()]
	for n := range len(original) {
		if v := im.holds(t, original[:n], whole, fmt.Sprintf("cut at %d", n)); v.refused != (n < segmentHeadBytes) {
			t.Fatalf("cut at %d: refused is %v", n, v.refused)
		}
	}
	t.Logf("cut at each of %d bytes", len(original))
}

// A segment that another follows is whole, or the log is refused: also when it
// ends between two frames, or without its seal.
func TestNoEndOfASealedSegmentIsATear(t *testing.T) {
	im := newImage(t, 10)
	for _, name := range im.names[:2] {
		for n := range len(im.files[name]) {
			files := maps.Clone(im.files)
			files[name] = files[name][:n]
			_, err := openImage(files)
			isDamage(t, err, name, -1, fmt.Sprintf("%s cut at %d", name, n))
		}
		files := maps.Clone(im.files)
		files[name] = append(bytes.Clone(files[name]), make([]byte, 8)...)
		_, err := openImage(files)
		isDamage(t, err, name, int64(len(im.files[name])), name+" with zeros at its end")
	}
}

// Each single bit of a log of three segments is turned: the log is refused at
// the frame that it is in. Only the frames at the very end that no later one
// attests are cut, exactly those, and nothing is ever read that was not written.
func TestNoFlippedBitGoesUnnoticed(t *testing.T) {
	noFlippedBitGoesUnnoticed(t, newImage(t, 10))
	if *fullFlag {
		noFlippedBitGoesUnnoticed(t, newImageOf(t, 10, 6_550)) // 64 KiB in all
	}
}

func noFlippedBitGoesUnnoticed(t *testing.T, im *image) {
	t.Helper()
	whole := im.end(t)
	refused, cut := 0, 0
	for _, name := range im.names {
		changed := bytes.Clone(im.files[name])
		for bit := 0; bit < 8*len(changed); bit += slower {
			changed[bit/8] ^= 1 << (bit % 8)
			if name == im.last() && !im.holds(t, changed, whole, fmt.Sprintf("bit %d of %s", bit, name)).refused {
				cut++
			} else {
				refused++
			}
			if name != im.last() {
				files := maps.Clone(im.files)
				files[name] = changed
				_, err := openImage(files)
				isDamage(t, err, name, -1, fmt.Sprintf("bit %d of %s", bit, name))
			}
			changed[bit/8] ^= 1 << (bit % 8)
		}
	}
	t.Logf("%d flips refused, %d in the last three frames cut", refused, cut)
	unattested := im.frames[len(im.frames)-3]
	if window := 8 * (len(im.files[im.last()]) - int(unattested.offset)); slower == 1 && cut != window {
		t.Errorf("%d flips were taken for a tear, want the %d of the frames that nothing attests", cut, window)
	}
}

// What an earlier use of the disk left behind the end is no part of the log,
// whatever it is: another log's frames, of the same places, that say more was
// synced; frames of this one; zeros; anything.
func TestStaleBytesBehindTheEndAreATear(t *testing.T) {
	im, other := newImage(t, 10), newImage(t, 1000)
	whole, original := im.end(t), im.files[im.last()]
	end := im.frames[3].end // the last frame was never written
	stale := other.files[other.last()]
	for what, rest := range map[string][]byte{
		"another log's frame":   stale[im.frames[4].offset:im.frames[4].end],
		"another log's frames":  append(bytes.Clone(stale[end:]), stale...),
		"frames of this log":    original[segmentHeadBytes:end],
		"zeros":                 make([]byte, 1000),
		"a part of its frame":   original[end : end+48],
		"its frame from behind": append(make([]byte, 48), original[end+48:]...),
	} {
		if v := im.holds(t, append(bytes.Clone(original[:end]), rest...), whole, what); v.refused || v.torn != int64(len(rest)) {
			t.Errorf("%s: refused is %v, %d torn bytes, want %d", what, v.refused, v.torn, len(rest))
		}
	}
	forSeeds(t, 300, func(t *testing.T, random *rand.Rand) {
		im.holds(t, append(bytes.Clone(original), garbage(random, 200)...), whole, "garbage")
	})
}

func garbage(random *rand.Rand, most int) []byte {
	b := make([]byte, random.IntN(most))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// Holes of zeros, swapped blocks and garbage anywhere in the last segment: what
// was synced and is attested is refused, the rest is cut, nothing else happens.
func TestHolesSwapsAndGarbage(t *testing.T) {
	im := newImage(t, 10)
	whole, original := im.end(t), im.files[im.last()]
	for from := 0; from < len(original); from += 8 {
		for to := from + 8; to <= len(original); to += 8 * slower {
			changed := bytes.Clone(original)
			clear(changed[from:to])
			im.holds(t, changed, whole, fmt.Sprintf("zeros from %d to %d", from, to))
		}
	}
	forSeeds(t, 2000, func(t *testing.T, random *rand.Rand) {
		changed := bytes.Clone(original)
		from, to := random.IntN(len(changed)), random.IntN(len(changed))
		switch random.IntN(3) {
		case 0:
			copy(changed[from:], garbage(random, 64))
		case 1:
			copy(changed[from:], original[to:min(to+64, len(original))])
		default:
			for range 1 + random.IntN(4) {
				changed[random.IntN(len(changed))] ^= byte(random.Uint32())
			}
		}
		im.holds(t, changed, whole, fmt.Sprintf("bytes %d and %d", from, to))
	})
}

// twoSegments are the files of a log with so many entries in its first segment
// and one in its second.
func twoSegments(t *testing.T, count int, term uint64) map[string][]byte {
	t.Helper()
	fs := vfs.NewMem()
	log := openTestLog(t, LogOptions{FS: fs, Base: Position{1, 1}, SegmentBytes: 200})
	check(log.Append(run(2, term, count, 200), nil))
	check(errors.Join(log.Append(run(uint64(2+count), term, 1, 10), nil), log.Close()))
	files := map[string][]byte{}
	for sequence := range uint64(2) {
		data, err := fs.UnsafeGetFileDataBuffer("wal/" + segmentName(1+sequence))
		check(err)
		files[segmentName(1+sequence)] = data
	}
	return files
}

// A segment, intact in itself, that goes on from an entry that the log has not
// is of another log, or of another time.
func TestASegmentOfAnotherLogIsRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		other map[string][]byte
		want  string
	}{
		{"later", twoSegments(t, 5, 1), "it follows entry 6 of term 1, which is not in the log from 2 to 4"},
		{"of another term", twoSegments(t, 3, 2), "it follows entry 4 of term 2, which is not in the log from 2 to 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := twoSegments(t, 3, 1)
			log, err := openImage(files)
			check(errors.Join(err, log.Close()))
			files[segmentName(2)] = c.other[segmentName(2)]
			_, err = openImage(files)
			isDamage(t, err, segmentName(2), 0, c.name)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// A frame whose checksum is right and whose content is not comes from a newer
// version or a defect of this one. It is refused, not skipped.
func TestWhatThisVersionDoesNotKnowIsRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		kind    frameKind
		payload []byte
		want    string
	}{
		{"kind", 9, nil, "a frame of kind 9, which this version does not know"},
		{"flags", frameData, []byte{6}, "a record with flags 0x6, which this version does not know"},
		{"count", frameData, []byte{0, 200, 1}, "a record of 3 bytes with 200 entries"},
		{"short", frameData, []byte{0, 1, 11}, "a record of 3 bytes that does not end where it should"},
		{"long", frameData, []byte{0, 0, 0}, "a record of 3 bytes that does not end where it should"},
		{"gap", frameData, record{entries: []Entry{{Index: 12, Term: 2}}}.appendTo(nil), "entry 12 stands where one of 8 to 11 should"},
		{"order", frameData, record{entries: []Entry{{Index: 11, Term: 2}, {Index: 13, Term: 2}}}.appendTo(nil), "entry 13 stands where one of 8 to 11 should"},
		{"before", frameData, record{entries: []Entry{{Index: 7, Term: 2}}}.appendTo(nil), "entry 7 stands where one of 8 to 11 should"},
	} {
		t.Run(c.name, func(t *testing.T) {
			im := newImage(t, 10)
			data := im.files[im.last()]
			f := frame{kind: c.kind, salt: binary.LittleEndian.Uint64(data[8:]), offset: int64(len(data)), payload: c.payload}
			im.files[im.last()] = f.appendTo(data)
			_, err := openImage(im.files)
			var damage *DamageError
			if !errors.As(err, &damage) || damage.Reason != c.want || damage.Offset != int64(len(data)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A length that promises more than a frame may have is not believed: no memory
// is taken for it.
func TestALengthIsCheckedBeforeMemoryIsTaken(t *testing.T) {
	b := frame{kind: frameData, salt: 5, offset: 48}.appendTo(nil)
	binary.LittleEndian.PutUint32(b[4:], frameBytesMax+1)
	if _, err := payloadLength(b, 5, 48); !errors.Is(err, errBadFrame) {
		t.Errorf("a length of %d: %v", frameBytesMax+1, err)
	}
	binary.LittleEndian.PutUint32(b[4:], frameBytesMax)
	if n, err := payloadLength(b, 5, 48); err != nil || n != frameBytesMax {
		t.Errorf("a length of %d: %d, %v", frameBytesMax, n, err)
	}
}

// A reader that finds an entry gone that was there says so and gives nothing.
func TestDamageThatHappensWhileTheLogIsOpenIsToldToTheReader(t *testing.T) {
	fs := vfs.NewMem()
	log, err := OpenLog(LogOptions{FS: fs, Dir: "wal", Salt: func() uint64 { return 1 }, TailBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i < 4; i++ {
		check(log.Append([]Entry{{Index: i, Term: 1, Data: []byte("data")}}, nil))
	}
	data, err := fs.UnsafeGetFileDataBuffer("wal/" + segmentName(1))
	check(err)
	data[segmentHeadBytes+frameSize(9)+3] ^= 1 // in the second frame
	if _, err := log.Entries(1, 2, 1); err != nil {
		t.Errorf("the entry before the damage: %v", err)
	}
	got, err := log.Entries(1, 4, 100)
	isDamage(t, err, segmentName(1), segmentHeadBytes+frameSize(9), "the entry after it")
	if got != nil {
		t.Errorf("%d entries with an error", len(got))
	}
	check(log.Close())
}
