package storage

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func testIdentity(uuid string) Identity {
	return Identity{NodeID: 3, ClusterID: 1 << 63, UUID: uuid, Stage: StageReady, Founders: "<digest & more>", Peers: map[uint64]string{1: "one", 2: "two"}}
}

// An identity is read as it was saved; a directory without one has none.
func TestAnIdentityIsReadAsItWasSaved(t *testing.T) {
	fs := vfs.NewMem()
	check(fs.MkdirAll("data", 0o700))
	if _, ok, err := LoadIdentity(fs, "data"); ok || err != nil {
		t.Errorf("an empty directory has an identity: %v, %v", ok, err)
	}
	for _, want := range []Identity{testIdentity("a"), {}, testIdentity("b")} {
		if err := SaveIdentity(fs, "data", want); err != nil {
			t.Fatal(err)
		}
		if got, ok, err := LoadIdentity(fs, "data"); err != nil || !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v: %v, %v", got, want, ok, err)
		}
	}
}

// Each bit of the file is turned, and the file ends anywhere: it is refused, or
// it is another spelling of the same. It is never another member's.
func TestADamagedIdentityIsNotAnothers(t *testing.T) {
	fs := vfs.NewMem()
	check(fs.MkdirAll("data", 0o700))
	want := testIdentity("a")
	check(SaveIdentity(fs, "data", want))
	good, _, err := readFile(fs, "data/identity.json")
	check(err)
	refused := 0
	for bit := range 8 * len(good) {
		damaged := bytes.Clone(good)
		damaged[bit/8] ^= 1 << (bit % 8)
		if isRefused(t, fs, damaged, want) {
			refused++
		}
	}
	for n := range good {
		if !isRefused(t, fs, good[:n], want) {
			t.Errorf("cut at %d: not refused", n)
		}
	}
	if same := 8*len(good) - refused; same > len("identity")+len("crc32c") {
		t.Errorf("%d flips were not refused; only the case of the two names may be turned", same)
	}
}

func isRefused(t *testing.T, fs vfs.FS, data []byte, want Identity) bool {
	t.Helper()
	check(writeFileAtomic(fs, "data", identityFile, data))
	got, ok, err := LoadIdentity(fs, "data")
	if err == nil && (!ok || !reflect.DeepEqual(got, want)) {
		t.Fatalf("%q was read as %v", data, got)
	}
	if err != nil && !strings.Contains(err.Error(), "data/identity.json is damaged: ") {
		t.Fatalf("%q: %v", data, err)
	}
	return err != nil
}

// A crash at each operation of SaveIdentity leaves the old one or the new one,
// and once it has returned, the new one.
func TestACrashInSaveIdentityLeavesOneOfTheTwo(t *testing.T) {
	disk := newFrailDisk()
	check(disk.MkdirAll("data", 0o700))
	disk.syncDir(".")
	old, changed := testIdentity("old"), testIdentity("new")
	check(SaveIdentity(disk, "data", old))
	found := map[string]int{}
	look := func(left *frailDisk) string {
		got, ok, err := LoadIdentity(left, "data")
		if err != nil || !ok || !reflect.DeepEqual(got, old) && !reflect.DeepEqual(got, changed) {
			t.Fatalf("a crash left %v, %v, %v", got, ok, err)
		}
		found[got.UUID]++
		return got.UUID
	}
	disk.before = func(string, string) error {
		look(disk.cutPower(nothing))
		look(disk.cutPower(everything))
		for mask := range 16 {
			look(disk.cutPower(func() bool { mask = mask<<1 | mask>>3&1; return mask&1 == 1 }))
		}
		return nil
	}
	check(SaveIdentity(disk, "data", changed))
	if got := look(disk.cutPower(nothing)); got != "new" {
		t.Errorf("after SaveIdentity a crash left the %s one", got)
	}
	if found["old"] == 0 || found["new"] < 2 {
		t.Errorf("crashes left %v, want some of each", found)
	}
}

// An error of the disk at each operation of SaveIdentity is told, and leaves no
// file open.
func TestAFailedSaveIsTold(t *testing.T) {
	for k := 1; k <= 6; k++ {
		disk := newFrailDisk()
		check(disk.MkdirAll("data", 0o700))
		fault := &fault{at: k, err: errDisk}
		disk.before = fault.before
		err := SaveIdentity(disk, "data", testIdentity("a"))
		if told := err != nil && strings.HasSuffix(err.Error(), "input/output error"); told != (fault.op != "") || disk.handles != 0 {
			t.Errorf("operation %d, %s, failed: %d files are open, %v", k, fault.op, disk.handles, err)
		}
	}
}

// A data directory belongs to one process, until that lets go of it.
func TestADirectoryIsLockedOnce(t *testing.T) {
	for name, disk := range map[string]struct {
		fs  vfs.FS
		dir string
	}{"memory": {vfs.NewMem(), "data"}, "disk": {vfs.Default, filepath.Join(t.TempDir(), "data")}} {
		lock, err := LockDir(disk.fs, disk.dir)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = LockDir(disk.fs, disk.dir)
		if want := fmt.Sprintf("data directory %s is in use by another process", disk.dir); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
		if err := lock.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		again, err := LockDir(disk.fs, disk.dir)
		if err != nil {
			t.Fatalf("%s: after the first let go: %v", name, err)
		}
		if err := again.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A directory with a log or a state is not a new one, even without an identity.
func TestHasLogOrState(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(fs vfs.FS)
		want bool
	}{
		{"missing", func(vfs.FS) {}, false},
		{"empty", func(fs vfs.FS) { check(fs.MkdirAll("data", 0o700)) }, false},
		{"an identity", func(fs vfs.FS) {
			check(fs.MkdirAll("data", 0o700))
			check(SaveIdentity(fs, "data", testIdentity("a")))
		}, false},
		{"a log", func(fs vfs.FS) { check(fs.MkdirAll("data/wal", 0o700)) }, true},
		{"a state", func(fs vfs.FS) { check(fs.MkdirAll("data/state", 0o700)) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			c.make(fs)
			if got, err := HasLogOrState(fs, "data"); got != c.want || err != nil {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
		})
	}
}

// A directory of a newer format is refused, with both numbers, before anything
// else of it is read; one without a number has format 1.
func TestANewerFormatIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	check(fs.MkdirAll("data", 0o700))
	put := func(inner string) error {
		check(writeFileAtomic(fs, "data", identityFile, fmt.Appendf(nil, `{"identity":%s,"crc32c":%d}`, inner, crc32.Checksum([]byte(inner), castagnoli))))
		_, _, err := LoadIdentity(fs, "data")
		return err
	}
	for inner, fine := range map[string]bool{
		`{"nodeId":3}`:                     true,
		`{"formatVersion":1,"nodeId":3}`:   true,
		`{"formatVersion":2,"nodeId":3}`:   false,
		`{"formatVersion":2,"nodeId":"a"}`: false,
	} {
		err := put(inner)
		if told := err != nil && strings.Contains(err.Error(), "data/identity.json: the data directory has format 2, and this version reads formats up to 1"); fine && err != nil || !fine && !told {
			t.Errorf("%s: %v", inner, err)
		}
	}
	check(SaveIdentity(fs, "data", testIdentity("a")))
	if data, _, err := readFile(fs, "data/identity.json"); err != nil || !bytes.Contains(data, []byte(`"formatVersion":1,`)) {
		t.Errorf("it was saved as %s, %v", data, err)
	}
}
