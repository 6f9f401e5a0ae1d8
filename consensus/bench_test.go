package consensus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/stellmap/stellmap/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// BenchmarkPropose is proposals of 500 bytes inside one member, by how many
// callers are at it at once.
func BenchmarkPropose(b *testing.B) {
	for _, disk := range []string{"memory", "disk"} {
		for _, callers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/callers=%d", disk, callers), func(b *testing.B) {
				fs, dir := vfs.FS(vfs.NewMem()), "data"
				if disk == "disk" {
					fs, dir = vfs.Default, b.TempDir()
				}
				g, syncs := openAlone(b, fs, dir)
				command := make([]byte, 500)
				b.ResetTimer()
				before := syncs.Load()
				runParallel(b, callers, func() error {
					_, err := g.Propose(context.Background(), "", command)
					return err
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "proposals/s")
				b.ReportMetric(float64(b.N)/float64(max(1, syncs.Load()-before)), "proposals/sync")
			})
		}
	}
}

// runParallel shares b.N calls among callers.
func runParallel(b *testing.B, callers int, call func() error) {
	var next atomic.Int64
	ended := make(chan error, callers)
	for range callers {
		go func() {
			var err error
			for err == nil && next.Add(1) <= int64(b.N) {
				err = call()
			}
			ended <- err
		}()
	}
	for range callers {
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}
}

// openAlone runs the only member of a cluster until the benchmark ends.
func openAlone(b *testing.B, fs vfs.FS, dir string) (*Group, *atomic.Int64) {
	b.Helper()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	lock, err := storage.LockDir(fs, dir)
	must(err)
	file := IdentityFile{
		Load:     func() (storage.Identity, bool, error) { return storage.LoadIdentity(fs, dir) },
		Save:     func(id storage.Identity) error { return storage.SaveIdentity(fs, dir, id) },
		Occupied: func() (bool, error) { return storage.HasLogOrState(fs, dir) },
	}
	members := []Member{{ID: 1}}
	id, err := Found(file, Founding{NodeID: 1, ClusterID: 1, Members: members})
	must(err)
	engine, err := storage.OpenEngine(storage.EngineOptions{FS: fs, Dir: fs.PathJoin(dir, "state")})
	must(err)
	syncs := new(atomic.Int64)
	log, err := storage.OpenLog(storage.LogOptions{
		FS: fs, Dir: fs.PathJoin(dir, "wal"), Base: Base(), Salt: rand.Uint64, OnSync: func(time.Duration) { syncs.Add(1) },
	})
	must(err)
	g, err := Open(Config{
		ID: 1, ClusterID: 1, Members: members, Identity: id, IdentityFile: file, Log: log, Engine: engine,
		Machine: &journal{engine: engine}, Transport: nobody{},
	})
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		must(errors.Join(<-ended, log.Close(), engine.Close(), lock.Close()))
	})
	_, err = g.Barrier(ctx)
	must(err)
	return g, syncs
}

// nobody is a transport without peers.
type nobody struct{}

func (nobody) Send([]Outgoing) {}

func (nobody) SendSnapshot(OutgoingSnapshot) {}

func (nobody) Forward(context.Context, uint64, ForwardRequest) (ForwardReply, error) {
	return ForwardReply{}, ErrNotSent
}
