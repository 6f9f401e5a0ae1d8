package storage

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/zstd"
)

// savedFiles are the files of a folder by name.
type savedFiles map[string][]byte

// Names of the files of the two snapshots that the tests damage.
const (
	olderSnap = "00000000000000000002-00000000000000000007.snap"
	olderMeta = "00000000000000000002-00000000000000000007.meta"
	newerSnap = "00000000000000000002-00000000000000000009.snap"
	newerMeta = "00000000000000000002-00000000000000000009.meta"
)

// testFiles are two snapshots, at 7 and at 9, of the same size.
func testFiles(t testing.TB, bytes int) savedFiles {
	t.Helper()
	disk := newTestDisk()
	mustSave(t, openTestSnapshots(t, disk, 2), testStates(t, bytes, 7, 9)...)
	files := savedFiles{}
	for _, name := range []string{olderSnap, olderMeta, newerSnap, newerMeta} {
		data, ok, err := readFile(disk, "data/snapshot/"+name)
		if err != nil || !ok {
			t.Fatalf("%s: %v, %v", name, ok, err)
		}
		files[name] = data
	}
	if len(files[olderSnap]) != len(files[newerSnap]) {
		t.Fatalf("the states have %d and %d bytes: their sizes would tell them apart", len(files[olderSnap]), len(files[newerSnap]))
	}
	return files
}

// with is the files with one replaced; nil removes it.
func (f savedFiles) with(name string, data []byte) savedFiles {
	f = maps.Clone(f)
	if f[name] = data; data == nil {
		delete(f, name)
	}
	return f
}

func (f savedFiles) disk() vfs.FS {
	fs := vfs.NewMem()
	check(fs.MkdirAll("data/snapshot", 0o700))
	for name, data := range f {
		file, err := fs.Create("data/snapshot/"+name, vfs.WriteCategoryUnspecified)
		check(err)
		_, err = file.Write(bytes.Clone(data))
		check(errors.Join(err, file.Close()))
	}
	return fs
}

// found opens the files and tells which snapshots are intact and which files
// are named as damaged. What is no error of a file's is one of the test.
func (f savedFiles) found(t *testing.T) (intact []uint64, damaged []string) {
	t.Helper()
	s := openTestSnapshots(t, f.disk(), 2)
	newest, told, err := s.Newest(t.Context())
	if err != nil && !errors.Is(err, ErrNoSnapshot) {
		t.Fatal(err)
	}
	for _, m := range s.List() {
		if s.Verify(m) == nil {
			intact = append(intact, m.Index)
		}
	}
	if len(intact) > 0 && newest.Index != intact[0] || len(intact) == 0 && err == nil {
		t.Fatalf("newest is %d, %v, and intact are %v", newest.Index, err, intact)
	}
	if got := indexesOf(s.List()); !slices.Equal(got, intact) {
		t.Fatalf("listed are %v, and intact are %v", got, intact)
	}
	for _, err := range s.Damaged() {
		var wrong *SnapshotError
		if !errors.As(err, &wrong) {
			t.Fatal(err)
		}
		damaged = append(damaged, strings.TrimPrefix(wrong.File, "data/snapshot/"))
	}
	if newest.Index != 9 && len(told) == 0 && f[newerMeta] != nil {
		t.Fatalf("nothing was told of the newer one, and newest is %d", newest.Index)
	}
	return intact, damaged
}

// is says what is not found as it should be.
func (f savedFiles) is(t *testing.T, what string, intact []uint64, damaged ...string) {
	t.Helper()
	gotIntact, gotDamaged := f.found(t)
	slices.Sort(gotDamaged)
	slices.Sort(damaged)
	if !slices.Equal(gotIntact, intact) || !slices.Equal(gotDamaged, damaged) {
		t.Errorf("%s: intact are %v, want %v; damaged are %v, want %v", what, gotIntact, intact, gotDamaged, damaged)
	}
}

// Each bit of the four files is turned, and each byte removed, doubled and all
// that follows it: the snapshot is set aside, the other one is what is there.
func TestEachDamagedByteOfASnapshotIsNoticed(t *testing.T) {
	files := testFiles(t, 40)
	cases := 0
	try := func(what, name string, data []byte) {
		t.Helper()
		cases++
		intact := []uint64{9}
		if name == newerSnap || name == newerMeta {
			intact = []uint64{7}
		}
		files.with(name, data).is(t, what, intact, name)
	}
	files.is(t, "undamaged", []uint64{9, 7})
	for _, name := range []string{olderSnap, olderMeta, newerSnap, newerMeta} {
		good := files[name]
		for bit := 0; bit < 8*len(good); bit += max(slower/2, 1) {
			damaged := bytes.Clone(good)
			damaged[bit/8] ^= 1 << (bit % 8)
			try(fmt.Sprintf("bit %d of %s turned", bit, name), name, damaged)
		}
		for i := 0; i < len(good); i += slower {
			try(fmt.Sprintf("byte %d of %s removed", i, name), name, slices.Concat(good[:i], good[i+1:]))
			try(fmt.Sprintf("byte %d of %s twice", i, name), name, slices.Concat(good[:i+1], good[i:]))
			try(fmt.Sprintf("%s cut at %d", name, i), name, append([]byte{}, good[:i]...))
		}
		for what, more := range map[string][]byte{"a zero": {0}, "a line": {'\n'}, "a space": {' '}, "an empty frame": emptyFrame(t), "itself": good} {
			try(name+" followed by "+what, name, slices.Concat(good, more))
		}
	}
	t.Logf("%d cases", cases)
}

// In a state of 64 KiB one bit of each byte is turned: of some in the short
// form, of all of them with -full.
func TestEachDamagedByteOfALargeSnapshotIsNoticed(t *testing.T) {
	f := testFiles(t, 64<<10)
	fs := vfs.NewMem()
	check(fs.MkdirAll("data/snapshot", 0o700))
	write := func(name string, data []byte) {
		file, err := fs.Create("data/snapshot/"+name, vfs.WriteCategoryUnspecified)
		check(err)
		_, err = file.Write(data)
		check(errors.Join(err, file.Close()))
	}
	write(newerMeta, f[newerMeta])
	step := 37 * slower
	if *fullFlag {
		step = 1
	}
	good, cases := f[newerSnap], 0
	for i := 0; i < len(good); i += step {
		damaged := bytes.Clone(good)
		damaged[i] ^= 1 << (i % 8)
		write(newerSnap, damaged)
		if _, err := VerifySnapshotFile(fs, "data/snapshot/"+newerSnap, "data/snapshot/"+newerMeta); err == nil {
			t.Errorf("byte %d turned: nothing was noticed", i)
		}
		cases++
	}
	write(newerSnap, good)
	if _, err := VerifySnapshotFile(fs, "data/snapshot/"+newerSnap, "data/snapshot/"+newerMeta); err != nil {
		t.Error(err)
	}
	t.Logf("%d cases of %d bytes", cases, len(good))
}

// emptyFrame is what a decoder of zstd reads over.
func emptyFrame(t *testing.T) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	frame := z.EncodeAll(nil, nil)
	check(z.Close())
	return frame
}

// Files are lost, exchanged, renamed, or an older one is put in a newer one's
// place. A state whose meta is lost cannot be told from a crash's leftover; it
// is removed, and that is told.
func TestLostExchangedAndRenamedSnapshotFilesAreNoticed(t *testing.T) {
	f := testFiles(t, 40)
	both := []uint64{9, 7}
	renamed := func(from, to string) savedFiles { return f.with(to, f[from]).with(from, nil) }
	pairAt := func(snap, meta string) savedFiles {
		return savedFiles{snap: f[newerSnap], meta: f[newerMeta]}
	}
	const at8 = "00000000000000000002-00000000000000000008"
	for _, c := range []struct {
		what    string
		files   savedFiles
		intact  []uint64
		damaged []string
	}{
		{"nothing", f, both, nil},
		{"the newer state is lost", f.with(newerSnap, nil), []uint64{7}, []string{newerSnap}},
		{"the older state is lost", f.with(olderSnap, nil), []uint64{9}, []string{olderSnap}},
		{"both states are lost", f.with(olderSnap, nil).with(newerSnap, nil), nil, []string{olderSnap, newerSnap}},
		{"the newer meta is lost", f.with(newerMeta, nil), []uint64{7}, nil},
		{"the newer pair is lost", f.with(newerMeta, nil).with(newerSnap, nil), []uint64{7}, nil},
		{"the states are exchanged", f.with(newerSnap, f[olderSnap]).with(olderSnap, f[newerSnap]), nil, []string{olderSnap, newerSnap}},
		{"the metas are exchanged", f.with(newerMeta, f[olderMeta]).with(olderMeta, f[newerMeta]), nil, []string{olderMeta, newerMeta}},
		{"the pairs are exchanged", savedFiles{olderSnap: f[newerSnap], olderMeta: f[newerMeta], newerSnap: f[olderSnap], newerMeta: f[olderMeta]}, nil, []string{olderMeta, newerMeta}},
		{"the older state in the newer one's place", f.with(newerSnap, f[olderSnap]), []uint64{7}, []string{newerSnap}},
		{"the older meta in the newer one's place", f.with(newerMeta, f[olderMeta]), []uint64{7}, []string{newerMeta}},
		{"the older pair in the newer one's place", f.with(newerSnap, f[olderSnap]).with(newerMeta, f[olderMeta]), []uint64{7}, []string{newerMeta}},
		{"the newer pair in the older one's place", f.with(olderSnap, f[newerSnap]).with(olderMeta, f[newerMeta]), []uint64{9}, []string{olderMeta}},
		{"the pair renamed to another index", pairAt(at8+".snap", at8+".meta"), nil, []string{at8 + ".meta"}},
		{"the pair renamed to another term", pairAt("00000000000000000003-00000000000000000009.snap", "00000000000000000003-00000000000000000009.meta"), nil, []string{"00000000000000000003-00000000000000000009.meta"}},
		{"the state renamed", renamed(newerSnap, at8+".snap"), []uint64{7}, []string{newerSnap}},
		{"the meta renamed", renamed(newerMeta, at8+".meta"), []uint64{7}, []string{at8 + ".meta"}},
		{"a meta for a state, and a state for a meta", savedFiles{newerSnap: f[newerMeta], newerMeta: f[newerSnap]}, nil, []string{newerMeta}},
		{"a meta of a megabyte", f.with(newerMeta, bytes.Repeat(f[newerMeta], 5000)), []uint64{7}, []string{newerMeta}},
		{"empty files", savedFiles{newerSnap: {}, newerMeta: {}, olderSnap: {}, olderMeta: {}}, nil, []string{newerMeta, olderMeta}},
		{"an older pair put back beside a newer one is an older one", f, both, nil},
	} {
		c.files.is(t, c.what, c.intact, c.damaged...)
	}
}

// What is damaged stays where it is, whatever is opened, looked for and saved.
func TestADamagedSnapshotIsLeftAsItIs(t *testing.T) {
	f := testFiles(t, 40)
	states := testStates(t, 40, 7, 9, 11, 12)
	for _, damaged := range []savedFiles{f.with(newerSnap, f[olderSnap]), f.with(newerSnap, []byte("x")), f.with(newerSnap, nil), f.with(newerMeta, f[olderMeta])} {
		fs := damaged.disk()
		for range 2 {
			s := openTestSnapshots(t, fs, 1)
			if _, _, err := s.Newest(t.Context()); err != nil {
				t.Fatal(err)
			}
			mustSave(t, s, states[2:]...)
			for _, name := range []string{newerSnap, newerMeta} {
				if data, ok, err := readFile(fs, "data/snapshot/"+name); err != nil || ok != (damaged[name] != nil) || !bytes.Equal(data, damaged[name]) {
					t.Errorf("%s is %q, want %q: %v", name, data, damaged[name], err)
				}
			}
		}
	}
}

// Errors say which file, what is wrong with it, and what that means.
func TestWhatADamagedSnapshotIsToldAs(t *testing.T) {
	f := testFiles(t, 40)
	turned := bytes.Clone(f[newerSnap])
	turned[len(turned)/2] ^= 1
	m, err := decodeSnapshotMeta(f[newerMeta])
	check(err)
	meta := func(change func(*SnapshotMeta)) []byte {
		changed := m
		change(&changed)
		line, err := metaLine(changed)
		check(err)
		return line
	}
	size := len(f[newerSnap])
	for _, c := range []struct {
		what, want string
		files      savedFiles
	}{
		{"lost", newerSnap + " cannot be used: it is missing, though its meta is there: ", f.with(newerSnap, nil)},
		{"cut", fmt.Sprintf("%s cannot be used: it has 3 bytes, and its meta says %d; it is left as it is", newerSnap, size), f.with(newerSnap, []byte("abc"))},
		{"turned", newerSnap + " cannot be used: ", f.with(newerSnap, turned)},
		{"another's", fmt.Sprintf("%s cannot be used: its SHA-256 is ", newerSnap), f.with(newerSnap, f[olderSnap])},
		{"renamed", newerMeta + " cannot be used: it says index 7 and term 2: the file was renamed; it is left as it is", f.with(newerMeta, f[olderMeta])},
		{"no JSON", newerMeta + " cannot be used: invalid character", f.with(newerMeta, []byte("abc"))},
		{"spelled otherwise", newerMeta + " cannot be used: it is not spelled as it was written", f.with(newerMeta, bytes.TrimSpace(f[newerMeta]))},
		{"of a later version", newerMeta + " cannot be used: it has format 3, and this version reads formats up to 2; it is left as it is", f.with(newerMeta, meta(func(m *SnapshotMeta) { m.Format = 3 }))},
		{"of a later version only by a flipped bit", newerMeta + " cannot be used: its checksum is ", f.with(newerMeta, bytes.Replace(f[newerMeta], []byte(`"format":1`), []byte(`"format":3`), 1))},
		{"of a later version, with more in it", newerMeta + " cannot be used: it has format 3, and this version reads formats up to 2", f.with(newerMeta, laterMeta(`{"format":3,"colour":"red"}`))},
		{"another size in the meta", fmt.Sprintf("%s cannot be used: it has %d bytes, and its meta says %d", newerSnap, size, size+1), f.with(newerMeta, meta(func(m *SnapshotMeta) { m.FileBytes++ }))},
		{"another checksum in the meta", newerSnap + " cannot be used: its SHA-256 is " + m.SHA256 + ", and its meta says none", f.with(newerMeta, meta(func(m *SnapshotMeta) { m.SHA256 = "none" }))},
		{"a larger state in the meta", fmt.Sprintf("%s cannot be used: its state has %d bytes, and its meta says %d", newerSnap, m.StateBytes, m.StateBytes+1), f.with(newerMeta, meta(func(m *SnapshotMeta) { m.StateBytes++ }))},
		{"a smaller state in the meta", fmt.Sprintf("%s cannot be used: its state has more than the %d bytes that its meta says", newerSnap, m.StateBytes-1), f.with(newerMeta, meta(func(m *SnapshotMeta) { m.StateBytes-- }))},
	} {
		s := openTestSnapshots(t, c.files.disk(), 2)
		newest, damaged, err := s.Newest(t.Context())
		if err != nil || newest.Index != 7 || len(damaged) != 1 || !strings.HasPrefix(damaged[0].Error(), "snapshot file data/snapshot/"+c.want) {
			t.Errorf("%s: newest is %d, damaged %v, want %s: %v", c.what, newest.Index, damaged, c.want, err)
		}
	}
}

func laterMeta(inner string) []byte {
	return fmt.Appendf(nil, `{"snapshot":%s,"crc32c":%d}`+"\n", inner, crc32.Checksum([]byte(inner), castagnoli))
}

// A state that is intact in itself, under a meta of another position that is
// intact, too, is noticed.
func TestAStateOfAnotherPositionIsNoticed(t *testing.T) {
	f := testFiles(t, 40)
	older, err := decodeSnapshotMeta(f[olderMeta])
	check(err)
	older.Index = 9
	line, err := metaLine(older)
	check(err)
	s := openTestSnapshots(t, f.with(newerMeta, line).with(newerSnap, f[olderSnap]).disk(), 2)
	newest, damaged, err := s.Newest(t.Context())
	want := "snapshot file data/snapshot/" + newerSnap + " cannot be used: its state is of index 7 and term 2, and its meta says 9 and 2; it is left as it is"
	if err != nil || newest.Index != 7 || len(damaged) != 1 || damaged[0].Error() != want {
		t.Errorf("newest is %d, damaged %v, want %s: %v", newest.Index, damaged, want, err)
	}
}

// A file that changes after it was listed is noticed when it is read, and set
// aside then; so is a meta.
func TestDamageAfterTheOpening(t *testing.T) {
	states := testStates(t, 40, 7, 9)
	for _, name := range []string{newerSnap, newerMeta} {
		disk := newTestDisk()
		s := openTestSnapshots(t, disk, 2)
		saved := mustSave(t, s, states...)
		turn(disk, name, 70)
		err := s.Verify(saved[1])
		var wrong *SnapshotError
		if !errors.As(err, &wrong) || wrong.File != "data/snapshot/"+name || !slices.Equal(indexesOf(s.List()), []uint64{7}) || len(s.Damaged()) != 1 {
			t.Errorf("%s: %v, listed %v, damaged %v", name, err, s.List(), s.Damaged())
		}
		if again := s.Verify(saved[1]); again == nil || len(s.Damaged()) != 1 {
			t.Errorf("%s, looked at again: %v, damaged %v", name, again, s.Damaged())
		}
	}
	disk := newTestDisk()
	s := openTestSnapshots(t, disk, 2)
	saved := mustSave(t, s, states...)
	data, _, err := readFile(disk, "data/snapshot/"+olderMeta)
	check(err)
	older, err := decodeSnapshotMeta(data)
	check(err)
	older.Created++
	line, err := metaLine(older)
	check(err)
	disk.put("data/snapshot/"+olderMeta, &frailFile{now: line, disk: line})
	if err := s.Verify(saved[0]); err == nil || !strings.Contains(err.Error(), olderMeta+" cannot be used: it was exchanged for another's since it was listed") {
		t.Errorf("an exchanged meta: %v", err)
	}
}

// Restore reads a snapshot to its end before it switches: however it is
// damaged, the old state stays, and the error says which file it was.
func TestADamagedSnapshotIsNotRestored(t *testing.T) {
	f := testFiles(t, 40)
	m, err := decodeSnapshotMeta(f[newerMeta])
	check(err)
	e := openTestEngine(t, vfs.NewMem())
	put(t, e, Position{2, 1}, "old", "state")
	try := func(what string, data []byte, m SnapshotMeta) {
		t.Helper()
		fs := f.with(newerSnap, data).disk()
		s := openTestSnapshots(t, fs, 2)
		r, err := s.Open(m)
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(e.Restore(r), r.Close())
		var wrong *SnapshotError
		if !errors.As(err, &wrong) || wrong.File != "data/snapshot/"+newerSnap {
			t.Errorf("%s: %v", what, err)
		}
		if err := is(t, e, Position{2, 1}, "old=state"); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	good := f[newerSnap]
	for i := 0; i < len(good); i += 1 + slower/2 {
		damaged := bytes.Clone(good)
		damaged[i] ^= 1 << (i % 8)
		try(fmt.Sprintf("byte %d turned", i), damaged, m)
		try(fmt.Sprintf("cut at %d", i), append([]byte{}, good[:i]...), m)
	}
	// What the decoder takes, and the state's own checksum has nothing against.
	try("an empty frame at the end", slices.Concat(good, emptyFrame(t)), m)
	try("an empty frame before", slices.Concat(emptyFrame(t), good), m)
	for what, change := range map[string]func(*SnapshotMeta){
		"another checksum": func(m *SnapshotMeta) { m.SHA256 = strings.Repeat("0", 64) },
		"a larger file":    func(m *SnapshotMeta) { m.FileBytes++ },
		"a smaller file":   func(m *SnapshotMeta) { m.FileBytes-- },
		"a larger state":   func(m *SnapshotMeta) { m.StateBytes++ },
		"a smaller state":  func(m *SnapshotMeta) { m.StateBytes-- },
	} {
		changed := m
		change(&changed)
		try(what, good, changed)
	}
	s := openTestSnapshots(t, f.disk(), 2)
	r, err := s.Open(m)
	if err == nil {
		err = errors.Join(e.Restore(r), r.Close())
	}
	if err != nil || e.AppliedIndex() != m.Position() {
		t.Errorf("restored %v: %v", e.AppliedIndex(), err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// The reader of a damaged snapshot never says io.EOF, however often it is
// asked, and the snapshot is set aside by then.
func TestAReaderOfADamagedSnapshotHasNoEnd(t *testing.T) {
	f := testFiles(t, 40)
	f = f.with(newerSnap, slices.Concat(f[newerSnap], emptyFrame(t)))
	m, err := decodeSnapshotMeta(f[newerMeta])
	check(err)
	m.FileBytes = int64(len(f[newerSnap]))
	line, err := metaLine(m)
	check(err)
	s := openTestSnapshots(t, f.with(newerMeta, line).disk(), 2)
	r, err := s.Open(m)
	if err != nil {
		t.Fatal(err)
	}
	n, first := io.Copy(io.Discard, r)
	_, second := r.Read(make([]byte, 1))
	if first == nil || second != first || n != m.StateBytes || !slices.Equal(indexesOf(s.List()), []uint64{7}) || len(s.Damaged()) != 1 {
		t.Errorf("read %d of %d bytes, %v, %v; listed %v", n, m.StateBytes, first, second, s.List())
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// A frame that asks for more memory than any that is written is refused.
func TestAFrameWithALargeWindowIsRefused(t *testing.T) {
	f := testFiles(t, 40)
	var large bytes.Buffer
	z, err := zstd.NewWriter(&large, zstd.WithWindowSize(64<<20), zstd.WithEncoderConcurrency(1))
	check(err)
	for range 3 { // what is flushed in parts has a window, however small it is
		_, err = z.Write([]byte("x"))
		check(errors.Join(err, z.Flush()))
	}
	check(z.Close())
	m, err := decodeSnapshotMeta(f[newerMeta])
	check(err)
	m.FileBytes = int64(large.Len())
	line, err := metaLine(m)
	check(err)
	s := openTestSnapshots(t, f.with(newerMeta, line).with(newerSnap, large.Bytes()).disk(), 2)
	if err := s.Verify(m); !errors.Is(err, zstd.ErrWindowSizeExceeded) {
		t.Errorf("got %v", err)
	}
}
