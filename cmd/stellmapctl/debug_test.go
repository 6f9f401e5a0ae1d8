package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/stellmap/stellmap/api/proto/stellmap/peer/v1"
	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// dataDir is the data directory of a member that is not running.
type dataDir struct {
	t    *testing.T
	path string
}

func mustMarshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// envelope is a log entry as consensus writes it.
func envelope(kind byte, requestID string, payload []byte) []byte {
	b := []byte{1, kind}
	b = binary.BigEndian.AppendUint64(b, uint64(testNow.UnixMilli()))
	b = binary.BigEndian.AppendUint16(b, uint16(len(requestID)))
	return append(append(b, requestID...), payload...)
}

// newDataDir makes a small log of two segments and a small state.
func newDataDir(t *testing.T) *dataDir {
	d := &dataDir{t, filepath.Join(t.TempDir(), "data")}
	lock, err := storage.LockDir(vfs.Default, d.path)
	if err != nil {
		t.Fatal(err)
	}
	spec := &recordv1.InstanceSpec{Endpoints: []*recordv1.Endpoint{{Name: "http", Protocol: "http", Host: "10.0.0.1", Port: 80, Weight: 100}}, LeaseTtlMs: 30_000}
	key := &recordv1.InstanceKey{Namespace: "prod", Service: "orders", Id: "a"}
	cluster := mustMarshal(t, &peerv1.Cluster{Incarnation: "cafe", FeatureLevel: 1})
	member := mustMarshal(t, &peerv1.Member{Id: 1, Uuid: "uuid-1", Http: "10.0.0.9:8080"})
	register := mustMarshal(t, &recordv1.Command{Format: 1, Kind: &recordv1.Command_Register{Register: &recordv1.Register{
		Items: []*recordv1.RegisterItem{{Key: key, Spec: spec}},
	}}})
	log, err := storage.OpenLog(storage.LogOptions{
		FS: vfs.Default, Dir: filepath.Join(d.path, "wal"), Base: storage.Position{Index: 1, Term: 1}, Salt: func() uint64 { return 7 }, SegmentBytes: 400,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, data := range [][]byte{nil, envelope(2, "", cluster), envelope(3, "", member), envelope(1, "request-1", register), envelope(99, "", nil)} {
		index := uint64(i + 2)
		err = errors.Join(err, log.Append([]storage.Entry{{Index: index, Term: 2, Data: data}}, &storage.HardState{Term: 2, Vote: 1, Commit: index - 1}), log.Sync())
	}
	err = errors.Join(err, log.Close())

	engine, opened := storage.OpenEngine(storage.EngineOptions{FS: vfs.Default, Dir: filepath.Join(d.path, "state")})
	if opened != nil {
		t.Fatal(opened)
	}
	b := engine.NewBatch()
	for key, value := range map[string][]byte{
		"__meta__/cluster":                                                 cluster,
		"__meta__/configuration":                                           {0x08, 1}, // voter 1
		"__meta__/member/00000000000000000001":                             member,
		"__meta__/time":                                                    binary.BigEndian.AppendUint64(nil, uint64(testNow.UnixMilli())),
		string(storage.ServiceKey("prod", "orders")):                       mustMarshal(t, &recordv1.ServiceRecord{Format: 1, Created: 5, Revision: 5}),
		string(storage.InstanceKey("prod", "orders", "a")):                 mustMarshal(t, &recordv1.InstanceRecord{Format: 1, Spec: spec, Status: recordv1.InstanceRecord_STATUS_PASSING, Revision: 5}),
		string(storage.InstanceKey("prod", "orders", "b")):                 mustMarshal(t, &recordv1.InstanceRecord{Format: 1, Spec: spec, Status: recordv1.InstanceRecord_STATUS_EXPIRED, Revision: 5}),
		string(storage.RegionInstanceKey("b", 200, "prod", "orders", "c")): mustMarshal(t, &recordv1.InstanceRecord{Format: 1, Spec: spec, Status: recordv1.InstanceRecord_STATUS_PASSING, Revision: 5}),
		string(storage.CursorKey("b", 200)):                                mustMarshal(t, &recordv1.RegionRecord{Format: 1, Syncs: 1, Cursor: &recordv1.ImportCursor{Incarnation: "beef", Revision: 7}}),
	} {
		b.Set([]byte(key), value)
	}
	err = errors.Join(err, engine.Apply(b, storage.Position{Index: 5, Term: 2}), d.backup(engine), engine.Close(), lock.Close())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// backup writes one beside the directory.
func (d *dataDir) backup(engine *storage.Engine) error {
	state, err := engine.Snapshot()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	_, err = storage.WriteBackup(d.t.Context(), &out, state, storage.SnapshotMeta{ClusterID: 100, Incarnation: "cafe", Created: testNow.UnixMilli()})
	return errors.Join(err, state.Close(), os.WriteFile(d.path+".backup", out.Bytes(), 0o600))
}

// change does something to a file: flip OFFSET, cut BYTES, append TEXT or remove.
func (d *dataDir) change(words []string) {
	d.t.Helper()
	path := filepath.Join(filepath.Dir(d.path), words[0])
	data, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	number := 0
	if len(words) > 2 && words[1] != "append" {
		if number, err = strconv.Atoi(words[2]); err != nil {
			d.t.Fatal(err)
		}
	}
	switch words[1] {
	case "flip":
		data[number] ^= 0x10
	case "cut":
		data = data[:len(data)-number]
	case "append":
		data = append(data, words[2]...)
	case "remove":
		if err := os.Remove(path); err != nil {
			d.t.Fatal(err)
		}
		return
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// ctl runs stellmapctl on it; DIR in the story is where it lies.
func (d *dataDir) ctl(line string) string {
	var out, errs bytes.Buffer
	c := &ctl{lookup: noEnvironment, stdout: &out, stderr: &errs, transport: http.DefaultTransport, now: func() time.Time { return testNow }}
	code := c.run(d.t.Context(), words(d.t, strings.ReplaceAll(line, "DIR", d.path)))
	return strings.ReplaceAll(out.String()+marked(errs.String()), d.path, "DIR") + fmt.Sprintf("exit %d\n", code)
}

// What debug and snapshot show of a data directory and a backup, whole and damaged. Neither changes a byte.
func TestDebugGolden(t *testing.T) {
	datadriven.Walk(t, "testdata/debug", func(t *testing.T, path string) {
		var dir *dataDir
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "data":
				dir = newDataDir(t)
			case "change":
				dir.change(strings.Fields(d.Input))
			case "lock":
				lock, err := storage.LockDir(vfs.Default, dir.path)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := lock.Close(); err != nil {
						t.Error(err)
					}
				})
			case "ctl":
				before := bytesBelow(t, dir.path)
				said := dir.ctl(d.Input)
				if bytesBelow(t, dir.path) != before {
					t.Errorf("%s: the data directory was changed", d.Pos)
				}
				return said
			default:
				t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
			}
			return ""
		})
	})
}

// bytesBelow is all names and contents below a folder.
func bytesBelow(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %x\n", path, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
