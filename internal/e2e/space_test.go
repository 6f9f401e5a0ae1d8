package e2e

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/stellmap/stellmap/internal/process"
)

var fills = flag.Int("fills", 3, "how often the disk is filled")

const (
	diskBytes    = 768 << 20
	reserveBytes = 192 << 20
	ballastBytes = reserveBytes / 2 // more than a segment of the log
	lastBytes    = 8 << 20          // of the room above the reserve that registrations fill
	bigBytes     = 12 << 10
	bigInstances = 64
	roomAgain    = 10 * time.Second // for growth to go on after room was made
	fillTime     = 60 * time.Second // for registrations to fill what is left
)

// smallDisk is a file system of its own for a member's data, and somebody
// else's file beside them.
type smallDisk struct {
	t   *testing.T
	dir string
}

// mountDisk needs to be allowed to mount.
func mountDisk(t *testing.T, dir string) *smallDisk {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("stellmap-e2e", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskBytes)); err != nil {
		why := fmt.Sprintf("full disks are NOT TESTED, since a tmpfs cannot be mounted here (uid %d): %v", os.Geteuid(), err)
		permission := os.Geteuid() != 0 || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES)
		if os.Getenv("CI") != "" && !permission {
			t.Fatal(why)
		}
		fmt.Fprintln(os.Stderr, why)
		t.Skip(why)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return &smallDisk{t: t, dir: dir}
}

// newClusterOnASmallDisk is one member whose data are on a disk of its own.
func newClusterOnASmallDisk(t *testing.T, reserve string) (*cluster, *member, *smallDisk) {
	t.Helper()
	var d *smallDisk
	c := newClusterWith(t, 1, func(m *member) {
		d = mountDisk(t, filepath.Join(m.dir, "disk"))
		config, err := os.ReadFile(m.config)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(config), m.dataDir(), filepath.Join(d.dir, "data"), 1)
		text += fmt.Sprintf("[storage]\nreserve = %q\n[snapshot]\nbytes = \"4MiB\"\ntail = 100\n", reserve)
		if err := os.WriteFile(m.config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	return c, c.members[0], d
}

func (d *smallDisk) free() int64 {
	d.t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &s); err != nil {
		d.t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// leave grows somebody else's file, or makes it smaller, until about so much is free.
func (d *smallDisk) leave(free int64) {
	d.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.dir, "foreign"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		d.t.Fatal(err)
	}
	const step = 8 << 20
	size := info.Size()
	for more := d.free() - free; more > 0 && err == nil; more = d.free() - free {
		more = min(more, step)
		err = syscall.Fallocate(int(f.Fd()), 0, size, more)
		size += more
	}
	if less := free - d.free(); less > 0 && err == nil {
		err = f.Truncate(max(0, size-less))
	}
	if err := errors.Join(err, f.Close()); err != nil && !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatal(err)
	}
}

// big registers one of the large instances with a value of its own and tells
// the status; 0 is no answer.
func (c *cluster) big(m *member, random *rand.Rand, last map[string]history) int {
	b := make([]byte, bigBytes/2)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	id, value := fmt.Sprintf("big-%d", random.IntN(bigInstances)), hex.EncodeToString(b)
	a, err := c.call(c.t.Context(), http.MethodPut, instanceURL(m, writtenService, id), registration(writtenPortFirst, value))
	h := last[id]
	switch {
	case err != nil:
		h.unknown = &value
		a.status = 0
	case a.status/100 == 2:
		h.acked = value
	case a.status != http.StatusInsufficientStorage: // which says that nothing was done
		h.unknown = &value
	}
	last[id] = h
	return a.status
}

// fillUp registers until that is refused, and tells how many were acknowledged.
func (c *cluster) fillUp(m *member, random *rand.Rand, last map[string]history) int {
	c.t.Helper()
	for n, deadline := 0, time.Now().Add(fillTime); time.Now().Before(deadline); n++ {
		switch status := c.big(m, random, last); status {
		case http.StatusOK, http.StatusCreated:
		case http.StatusInsufficientStorage:
			return n
		default:
			c.t.Fatalf("registration %d was answered %d:\n%s", n, status, m.proc.Tail(10))
		}
	}
	c.t.Fatalf("not refused after %v", fillTime)
	return 0
}

// growsAgain waits until a registration is acknowledged.
func (c *cluster) growsAgain(m *member, random *rand.Rand, last map[string]history) time.Duration {
	c.t.Helper()
	took, err := process.Within(c.t.Context(), roomAgain, "growth to go on", func() error {
		if status := c.big(m, random, last); status/100 != 2 {
			return fmt.Errorf("answered %d", status)
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return took
}

// adsStream is an open delta stream that subscribes to one service.
type adsStream struct {
	t         *testing.T
	endpoints chan int // of the service, at each response
}

const watchedService = "watched"

// watch opens a stream that lasts until ctx ends. Its end before that is an error.
func (c *cluster) watch(ctx context.Context, m *member) *adsStream {
	c.t.Helper()
	conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", m.ports[1]), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Fatal(err)
	}
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	const typeURL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	if err := stream.Send(&discovery.DeltaDiscoveryRequest{
		Node:    &core.Node{Id: "space", UserAgentName: "envoy", Locality: &core.Locality{Region: "local"}},
		TypeUrl: typeURL, ResourceNamesSubscribe: []string{watchedService + ".default"},
	}); err != nil {
		c.t.Fatal(err)
	}
	s := &adsStream{t: c.t, endpoints: make(chan int, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			r, err := stream.Recv()
			if err == nil {
				err = s.take(r)
			}
			if err == nil {
				err = stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: r.GetNonce()})
			}
			if err != nil {
				if ctx.Err() == nil {
					c.t.Errorf("the stream of %s ended: %v", m.name(), err)
				}
				return
			}
		}
	}()
	c.t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			c.t.Error(err)
		}
		<-done
	})
	return s
}

func (s *adsStream) take(r *discovery.DeltaDiscoveryResponse) error {
	for _, resource := range r.GetResources() {
		var a endpoint.ClusterLoadAssignment
		if err := resource.GetResource().UnmarshalTo(&a); err != nil {
			return err
		}
		n := 0
		for _, l := range a.GetEndpoints() {
			n += len(l.GetLbEndpoints())
		}
		s.endpoints <- n
	}
	return nil
}

// until waits for a response with so many endpoints.
func (s *adsStream) until(want int) {
	s.t.Helper()
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	for have := -1; have != want; {
		select {
		case have = <-s.endpoints:
		case <-timer.C:
			s.t.Fatalf("the stream was last told of %d endpoints, want %d", have, want)
		}
	}
}

// A disk is filled over and over, by registrations and by a file of somebody else's. Each time what
// grows is refused before anything fails; reads, renewals, deregistrations and an open ADS stream go
// on; it recovers by itself when there is room; nothing acknowledged is missing, before and after
// kill -9 at a full disk and at one with room.
func TestAFullDiskIsMetBeforeItIsFull(t *testing.T) {
	random := seed(t)
	c, m, d := newClusterOnASmallDisk(t, fmt.Sprintf("%dMiB", reserveBytes>>20))
	last := make(map[string]history)
	put := func(id string, statuses ...int) {
		t.Helper()
		c.must(http.MethodPut, instanceURL(m, watchedService, id), registration(9000+len(id), id), statuses...) // ports of their own
	}
	put("stays", http.StatusCreated)
	watching, leave := context.WithCancel(t.Context())
	defer func() { leave() }()
	stream := c.watch(watching, m)
	var slowest time.Duration
	for round := range *fills {
		put("goes", http.StatusCreated)
		stream.until(2)
		if round%2 == 0 {
			d.leave(reserveBytes + lastBytes) // and registrations take the rest
		} else {
			d.leave(reserveBytes / 2) // under their feet
		}
		acked := c.fillUp(m, random, last)
		if d.free() < reserveBytes/8 {
			t.Fatalf("round %d: growth was refused when only %d bytes were free", round, d.free())
		}
		if round%3 == 1 {
			leave()
			c.kill(m)
			c.start(m)
			c.mustBeReady()
			watching, leave = context.WithCancel(t.Context())
			stream = c.watch(watching, m)
			stream.until(2)
		}
		c.worksOnAFullDisk(m, random, last, stream)
		full := d.free()
		d.leave(diskBytes)
		took := c.growsAgain(m, random, last)
		slowest = max(slowest, took)
		c.check(random, last)
		t.Logf("round %d: refused after %d registrations with %d MiB free, grew again %v after there was room, %d MiB free then",
			round, acked, full>>20, took.Round(time.Millisecond), d.free()>>20)
	}
	leave()
	c.kill(m)
	c.start(m)
	c.mustBeReady()
	c.check(random, last)
	t.Logf("%d fills, growth went on after %v at the latest", *fills, slowest.Round(time.Millisecond))
}

// worksOnAFullDisk: all but growth.
func (c *cluster) worksOnAFullDisk(m *member, random *rand.Rand, last map[string]history, stream *adsStream) {
	c.t.Helper()
	c.check(random, last)
	c.must(http.MethodPost, instanceURL(m, watchedService, "stays")+"/renew", "", http.StatusOK)
	c.must(http.MethodGet, m.url()+"/readyz", "", http.StatusOK)
	if a := c.must(http.MethodGet, m.url()+"/readyz?verbose", "", http.StatusOK); !strings.Contains(string(a.body), "[!] space") {
		c.t.Errorf("/readyz?verbose does not tell of it:\n%s", a.body)
	}
	a := c.must(http.MethodPut, instanceURL(m, watchedService, "more"), registration(9000, "more"), http.StatusInsufficientStorage)
	if !strings.Contains(string(a.body), `"disk_full"`) {
		c.t.Errorf("refused with %s", a.body)
	}
	c.must(http.MethodDelete, instanceURL(m, watchedService, "goes"), "", http.StatusOK)
	stream.until(1)
	c.must(http.MethodGet, instanceURL(m, watchedService, "goes"), "", http.StatusNotFound)
}

// Without a reserve the log meets the end of the disk: the member ends with exit code 1 and says why.
// It starts again once there is room, and nothing acknowledged is missing.
func TestAMemberEndsWhenItsDiskIsFull(t *testing.T) {
	random := seed(t)
	c, m, d := newClusterOnASmallDisk(t, "0")
	last := make(map[string]history)
	for range 20 {
		c.big(m, random, last)
	}
	d.leave(1 << 20)
	acked := 0
	for deadline := time.Now().Add(fillTime); m.proc.Running() && time.Now().Before(deadline); {
		if c.big(m, random, last)/100 == 2 {
			acked++
		}
	}
	if m.proc.Running() {
		t.Fatalf("it runs with %d bytes free", d.free())
	}
	if code := m.proc.ExitCode(); code != 1 || !strings.Contains(m.proc.Output(), "no space left on device") {
		t.Errorf("it ended with exit code %d, want 1:\n%s", code, m.proc.Tail(10))
	}
	if acked == 0 {
		t.Error("nothing was acknowledged before the disk was full")
	}
	d.leave(diskBytes)
	c.start(m)
	c.mustBeReady()
	c.check(random, last)
	if took := c.growsAgain(m, random, last); took > roomAgain {
		t.Errorf("it grows after %v", took)
	}
	t.Logf("ended after %d acknowledged registrations", acked)
}

// The ballast makes room for a start on a disk without a free byte, and comes back when there is room.
func TestAStartOnAFullDisk(t *testing.T) {
	random := seed(t)
	c, m, d := newClusterOnASmallDisk(t, fmt.Sprintf("%dMiB", reserveBytes>>20))
	ballast := func() error {
		info, err := os.Stat(filepath.Join(d.dir, "data", "ballast"))
		if err == nil && info.Size() != ballastBytes {
			err = fmt.Errorf("the ballast has %d bytes, want %d", info.Size(), ballastBytes)
		}
		return err
	}
	wait := func(what string) {
		t.Helper()
		if _, err := process.Within(t.Context(), roomAgain, what, ballast); err != nil {
			t.Fatal(err)
		}
	}
	wait("the ballast")
	last := make(map[string]history)
	for range 100 {
		c.big(m, random, last)
	}
	c.kill(m)
	d.leave(0)
	if free := d.free(); free > 0 {
		t.Fatalf("%d bytes are free", free)
	}
	c.start(m)
	c.mustBeReady()
	c.check(random, last)
	if status := c.big(m, random, last); status != http.StatusInsufficientStorage {
		t.Errorf("a registration was answered %d", status)
	}
	if said := m.proc.Output(); !strings.Contains(said, "ballast was removed") {
		t.Errorf("it does not say that the ballast is gone:\n%s", said)
	}
	d.leave(diskBytes)
	c.growsAgain(m, random, last)
	wait("the ballast to come back")
}
