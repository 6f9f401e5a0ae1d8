package consensus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/stellmap/stellmap/storage"
)

// cluster is a whole cluster in one synctest bubble. Nothing moves by itself:
// ticks are given by hand, messages are delivered one receiver at a time, and
// after each of these everybody runs until all wait again. So a story has the
// same course whenever it is told.
type cluster struct {
	t     *testing.T
	size  int
	short bool // logs and snapshots are so small that a story can fill them
	tune  func(*Config)
	nodes map[uint64]*node
	cut   map[[2]uint64]bool // from, to
	grows bool               // nodes join: a snapshot that one of them needs is taken at once
	// breaks is after how many bytes each transfer of a snapshot breaks off; 0 = none does.
	breaks  int64
	carried int64 // bytes of snapshots
	holds   bool  // transfers are kept back, until they are released
	late    []envelopeOnWire

	mu    sync.Mutex // guards what follows
	queue []envelopeOnWire
}

type envelopeOnWire struct {
	from uint64
	Outgoing
	snapshot *OutgoingSnapshot
}

// node is one member with its disk.
type node struct {
	*Group
	cluster     *cluster
	id          uint64
	fs          *vfs.MemFS
	trouble     trouble
	low         atomic.Bool // its disk is nearly full
	crashAtSave int         // which save of the identity fails; 0 for none
	joins       bool        // it did not found the cluster
	via         uint64      // whom it asks to be taken in
	uuids       int         // data directories that this id has had
	opened      []io.Closer
	rebuilt     *storage.Rebuilt
	machine     *journal
	registry    *prometheus.Registry
	ticks       chan time.Time
	cancel      context.CancelFunc
	ended       chan error
	gone        bool
}

func newTunedCluster(t *testing.T, size int, short bool, tune func(*Config)) *cluster {
	c := &cluster{t: t, size: size, short: short, tune: tune, nodes: make(map[uint64]*node), cut: make(map[[2]uint64]bool)}
	for id := range uint64(size) {
		n := &node{cluster: c, id: id + 1, fs: vfs.NewCrashableMem(), gone: true}
		c.nodes[n.id] = n
	}
	for _, id := range c.ids() {
		if err := c.nodes[id].start(); err != nil {
			t.Fatalf("start node %d: %v", id, err)
		}
	}
	t.Cleanup(c.close)
	return c
}

func (c *cluster) ids() []uint64 { return slices.Sorted(maps.Keys(c.nodes)) }

// close ends all that runs.
func (c *cluster) close() {
	for _, id := range c.ids() {
		if n := c.nodes[id]; !n.gone {
			if err := n.stop(); err != nil {
				c.t.Errorf("node %d ended with: %v", id, err)
			}
		}
	}
}

func (c *cluster) members() []Member {
	var members []Member
	for id := range uint64(c.size) {
		members = append(members, (&node{id: id + 1}).self())
	}
	return members
}

func (n *node) identityFile() IdentityFile {
	return IdentityFile{
		Load: func() (storage.Identity, bool, error) { return storage.LoadIdentity(n.fs, "data") },
		Save: func(id storage.Identity) error {
			if n.crashAtSave--; n.crashAtSave == 0 {
				return errors.New("the power is cut")
			}
			return storage.SaveIdentity(n.fs, "data", id)
		},
		Occupied: func() (bool, error) { return storage.HasLogOrState(n.fs, "data") },
	}
}

// start opens the data directory and runs the member.
func (n *node) start() error {
	if err := n.open(); err != nil {
		return err
	}
	n.run()
	return nil
}

// open opens the data directory.
func (n *node) open() (err error) {
	var opened []io.Closer
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(opened))
		}
	}()
	disk := errorfs.Wrap(n.fs, &n.trouble)
	lock, err := storage.LockDir(disk, "data")
	if err != nil {
		return err
	}
	opened = append(opened, lock)
	id, err := Found(n.identityFile(), Founding{
		NodeID: n.id, ClusterID: 100, Members: n.cluster.members(), Join: n.joins,
		UUID: func() string { n.uuids++; return fmt.Sprintf("uuid-%d-%d", n.id, n.uuids) },
	})
	if err != nil {
		return err
	}
	var joining Joining
	if id.Stage == storage.StageJoining {
		if id, joining, err = n.takenIn(id); err != nil {
			return err
		}
	}
	random := rand.New(rand.NewPCG(n.id, uint64(n.uuids)))
	options := storage.StoreOptions{
		Snapshots: storage.SnapshotsOptions{FS: disk, Dir: "data/snapshot"},
		Engine:    storage.EngineOptions{FS: disk, Dir: "data/state"},
		Log:       storage.LogOptions{FS: disk, Dir: "data/wal", Base: LogBase(id), Salt: random.Uint64},
	}
	config := Config{}
	if n.cluster.short {
		options.Log.SegmentBytes = 256 // a few entries
		config = Config{SnapshotEntries: 10, SnapshotBytes: 1 << 20, LogTail: 4, BehindMax: 4}
	}
	store, err := storage.OpenStore(context.Background(), options)
	if err != nil {
		return err
	}
	opened = append(opened, store)
	n.rebuilt = store.Rebuilt
	n.machine, n.registry = &journal{engine: store.Engine, published: store.Engine.AppliedIndex().Index}, prometheus.NewRegistry()
	config.ID, config.ClusterID, config.Members, config.Self, config.Joining = n.id, 100, n.cluster.members(), n.self(), joining
	config.Identity, config.IdentityFile, config.Log, config.Engine = id, n.identityFile(), store.Log, store.Engine
	config.Snapshots = store.Snapshots
	config.Machine, config.Transport, config.Clock, config.Random, config.Registerer = n.machine, n, n, random.Uint64, n.registry
	config.Low, config.Grows = n.low.Load, grows
	if n.cluster.tune != nil {
		n.cluster.tune(&config)
	}
	n.Group, err = Open(config)
	if err != nil {
		return err
	}
	n.opened = opened
	return nil
}

// self is what the member says of itself.
func (n *node) self() Member { return Member{ID: n.id, HTTP: fmt.Sprintf("http-%d", n.id)} }

// takenIn asks another member, and has the network work until it has answered.
func (n *node) takenIn(id storage.Identity) (storage.Identity, Joining, error) {
	n.cluster.grows = true
	type answer struct {
		Joining
		error
	}
	done := make(chan answer, 1)
	self := n.self()
	self.UUID = id.UUID
	go func() {
		j, err := n.cluster.nodes[n.via].TakeIn(context.Background(), self)
		done <- answer{j, err}
	}()
	for range 100 {
		n.cluster.settle()
		select {
		case a := <-done:
			if a.error != nil {
				return id, Joining{}, a.error
			}
			id, err := Join(n.identityFile(), id, a.Joining)
			return id, a.Joining, err
		default:
			n.cluster.tick(n.cluster.ids())
		}
	}
	return id, Joining{}, errors.New("nobody answered")
}

func (n *node) run() {
	var ctx context.Context
	ctx, n.cancel = context.WithCancel(context.Background())
	n.ended, n.gone = make(chan error, 1), false
	go func() { n.ended <- n.Run(ctx) }()
	synctest.Wait()
}

// grows: what begins with a minus does not.
func grows(command []byte) bool { return !bytes.HasPrefix(command, []byte("-")) }

// closeAll closes what was opened last first.
func closeAll(opened []io.Closer) error {
	var err error
	for _, c := range slices.Backward(opened) {
		err = errors.Join(err, c.Close())
	}
	return err
}

// trouble is what a story does to the log's syncs, and to the writing of snapshots.
type trouble struct {
	full atomic.Bool // there is no room for snapshots
	// installs is called when a state is about to be written beside the old one, once; nil = nobody.
	installs atomic.Pointer[func()]

	mu     sync.Mutex    // guards what follows
	blocks chan struct{} // syncs wait until it is closed
	fails  bool
}

func (d *trouble) String() string { return "trouble" }

func (d *trouble) MaybeError(op errorfs.Op) error {
	if d.full.Load() && op.Kind == errorfs.OpFileWrite && strings.HasPrefix(op.Path, "data/snapshot/") {
		return syscall.ENOSPC
	}
	if installs := d.installs.Load(); installs != nil && op.Kind == errorfs.OpCreate && strings.HasPrefix(op.Path, "data/state/") && d.installs.CompareAndSwap(installs, nil) {
		(*installs)()
	}
	sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
	if !sync || !strings.HasPrefix(op.Path, "data/wal/") {
		return nil
	}
	d.mu.Lock()
	blocks, fails := d.blocks, d.fails
	d.mu.Unlock()
	if fails {
		return errors.New("the disk is broken")
	}
	if blocks != nil {
		<-blocks
	}
	return nil
}

func (d *trouble) block() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.blocks = make(chan struct{})
}

func (d *trouble) fail() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails = true
}

func (d *trouble) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.blocks != nil {
		close(d.blocks)
	}
	d.blocks, d.fails = nil, false
}

// stop ends the member cleanly and returns what Run did.
func (n *node) stop() error {
	n.cancel()
	err := <-n.ended
	n.gone = true
	n.machine.end(n.cluster.t)
	return errors.Join(err, closeAll(n.opened))
}

// crash takes the disk as a power cut leaves it: nothing that was not synced.
func (n *node) crash() {
	left := n.fs.CrashClone(vfs.CrashCloneCfg{})
	if err := n.stop(); err != nil {
		n.cluster.t.Fatalf("stop node %d: %v", n.id, err)
	}
	n.fs = left
}

// crashInInstall notes what the disk would have if the power failed when the log begins anew after a snapshot and the
// state is the old one. From that moment on nobody hears it.
func (n *node) crashInInstall() (left func() *vfs.MemFS) {
	var clone *vfs.MemFS
	take := func() {
		n.cluster.isolate(n.id)
		clone = n.fs.CrashClone(vfs.CrashCloneCfg{})
	}
	n.trouble.installs.Store(&take)
	return func() *vfs.MemFS { return clone }
}

// Now is the bubble's time, and Ticker gives ticks by hand, to the owner only.
func (n *node) Now() time.Time { return time.Now() }

func (n *node) Ticker(d time.Duration) (<-chan time.Time, func()) {
	ticks := make(chan time.Time)
	if d == 100*time.Millisecond {
		n.ticks = ticks
	}
	return ticks, func() {}
}

// Send is the transport: messages lie there until the story delivers them.
func (n *node) Send(messages []Outgoing) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	for _, m := range messages {
		n.cluster.queue = append(n.cluster.queue, envelopeOnWire{from: n.id, Outgoing: m})
	}
}

// SendSnapshot puts the transfer among the messages.
func (n *node) SendSnapshot(s OutgoingSnapshot) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.cluster.queue = append(n.cluster.queue, envelopeOnWire{from: n.id, Outgoing: Outgoing{To: s.To}, snapshot: &s})
}

// Forward calls the other member at once. A request that the network eats was
// not sent; an answer that it eats is waited for in vain.
func (n *node) Forward(ctx context.Context, to uint64, r ForwardRequest) (ForwardReply, error) {
	other := n.cluster.nodes[to]
	if other.gone || !n.cluster.connected(n.id, to) {
		return ForwardReply{}, ErrNotSent
	}
	reply, err := other.HandleForward(ctx, r)
	if !n.cluster.connected(to, n.id) {
		<-ctx.Done()
		return ForwardReply{}, ctx.Err()
	}
	return reply, err
}

// isolate cuts all ways to and from a member.
func (c *cluster) isolate(at uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range c.ids() {
		c.cut[[2]uint64{at, id}], c.cut[[2]uint64{id, at}] = true, true
	}
}

func (c *cluster) connected(from, to uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.cut[[2]uint64{from, to}]
}

// settle delivers messages until there are none.
func (c *cluster) settle() {
	for {
		synctest.Wait()
		c.mu.Lock()
		batch := c.queue
		c.queue = nil
		c.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		slices.SortStableFunc(batch, func(a, b envelopeOnWire) int {
			return int(a.To*100+a.from) - int(b.To*100+b.from)
		})
		for _, m := range batch {
			c.deliver(m)
		}
	}
}

func (c *cluster) deliver(m envelopeOnWire) {
	from, to := c.nodes[m.from], c.nodes[m.To]
	if m.snapshot != nil && c.holds {
		c.late = append(c.late, m)
		return
	}
	if m.snapshot != nil {
		if !from.gone {
			from.ReportSnapshot(m.To, c.transfer(from, to, m.snapshot))
		}
		synctest.Wait()
		return
	}
	if to == nil || from.gone || to.gone || !c.connected(m.from, m.To) || !c.introduced(from, to) {
		return
	}
	to.HearLow(m.from, from.Low())
	if err := to.Receive(m.from, [][]byte{m.Data}); err != nil {
		c.t.Errorf("node %d refuses a message: %v", m.To, err)
	}
	synctest.Wait()
}

// transfer brings a snapshot to a member, in small chunks.
func (c *cluster) transfer(from, to *node, s *OutgoingSnapshot) bool {
	if to == nil || to.gone || !c.connected(from.id, to.id) || !c.connected(to.id, from.id) || !c.introduced(from, to) {
		return false
	}
	file, err := s.Open()
	if err != nil {
		c.t.Errorf("node %d opens the snapshot at %d: %v", from.id, s.Index, err)
		return false
	}
	defer closeFile(c.t, file)
	in, err := to.OfferSnapshot(from.id, s.Meta, s.Message)
	if err != nil {
		return false
	}
	defer in.Leave()
	chunk := make([]byte, 16)
	sent := int64(0)
	for at := in.Offset(); at < s.Bytes; at = in.Offset() {
		if c.breaks != 0 && sent >= c.breaks {
			return false
		}
		n, err := file.ReadAt(chunk[:min(int64(len(chunk)), s.Bytes-at)], at)
		if err != nil {
			c.t.Errorf("node %d reads the snapshot at %d: %v", from.id, s.Index, err)
			return false
		}
		if _, err := in.Write(chunk[:n]); err != nil {
			return false
		}
		sent += int64(n)
		c.carried += int64(n)
	}
	return in.Finish() == nil
}

func closeFile(t *testing.T, file io.Closer) {
	if err := file.Close(); err != nil {
		t.Error(err)
	}
}

// introduced is the handshake, both ways, without which nothing is delivered.
func (c *cluster) introduced(a, b *node) bool {
	ab, ba := b.Greet(a.Introduce()), a.Greet(b.Introduce())
	var r *Refusal
	tells := func() bool { return r.Reason == RefusedUUID || r.Reason == RefusedRemoved }
	if errors.As(ab, &r) && tells() && ba == nil {
		a.Refused(b.id, r)
	}
	if errors.As(ba, &r) && tells() && ab == nil {
		b.Refused(a.id, r)
	}
	return ab == nil && ba == nil
}

// tick gives the members one tick each, in turn, and moves the bubble's time.
func (c *cluster) tick(ids []uint64) {
	<-time.After(100 * time.Millisecond)
	for _, id := range ids {
		n := c.nodes[id]
		if n.gone {
			continue
		}
		select {
		case n.ticks <- time.Now():
		case <-n.ctx.Done():
		}
		c.settle()
		c.snapshotIfWanted(n)
	}
}

// snapshotIfWanted is what a member does within a second when another one needs a
// snapshot, in clusters to which members come. Elsewhere the story says when.
func (c *cluster) snapshotIfWanted(n *node) {
	if !c.grows || n.gone || n.ctx.Err() != nil || !n.snapshotWanted.Load() {
		return
	}
	if err := n.compact(); err != nil {
		c.t.Errorf("node %d takes a snapshot: %v", n.id, err)
	}
	c.settle()
}

// journal is a machine that keeps every command under its index.
type journal struct {
	engine  *storage.Engine
	spoiled bool // it writes something else than the others

	mu        sync.Mutex // guards what follows
	lines     []string   // visible
	pending   []string
	published uint64
	leads     uint64
	events    []string
}

func (j *journal) Apply(b *storage.Batch, e Entry) []byte {
	value := e.Data
	if j.spoiled {
		value = append(bytes.Clone(value), '!')
	}
	b.Set(fmt.Appendf(nil, "/journal/%020d", e.Index), value)
	j.pending = append(j.pending, fmt.Sprintf("%d:%s", e.Index, e.Data))
	return fmt.Appendf(nil, "did %s", e.Data)
}

func (j *journal) Publish(index uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if index <= j.published {
		panic(fmt.Sprintf("published %d after %d", index, j.published))
	}
	j.published = index
	j.lines = append(j.lines, j.pending...)
	j.pending = nil
}

func (j *journal) Install(index uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if index <= j.published {
		panic(fmt.Sprintf("installed %d after %d", index, j.published))
	}
	j.published, j.pending, j.lines = index, nil, nil
	j.events = append(j.events, fmt.Sprintf("install %d", index))
	return nil
}

func (j *journal) Lead(term uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.leads != 0 {
		panic(fmt.Sprintf("leads term %d and %d", j.leads, term))
	}
	j.leads = term
	j.events = append(j.events, fmt.Sprintf("lead %d", term))
}

func (j *journal) Follow() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.leads == 0 {
		panic("follows without having led")
	}
	j.leads = 0
	j.events = append(j.events, "follow")
}

func (j *journal) Answer(_ context.Context, request []byte) ([]byte, error) {
	return fmt.Appendf(nil, "answer to %s", request), nil
}

func (j *journal) end(t *testing.T) {
	if j.leads != 0 {
		t.Errorf("the machine was never told that term %d ended", j.leads)
	}
}

// content is what the engine holds.
func (j *journal) content() string {
	var lines []string
	prefix := []byte("/journal/")
	if err := j.engine.Scan(prefix, storage.PrefixEnd(prefix), func(_, value []byte) error {
		lines = append(lines, string(value))
		return nil
	}); err != nil {
		return err.Error()
	}
	return strings.Join(lines, " ")
}

// dropped reads how many messages were dropped at a queue.
func (n *node) dropped(t *testing.T, queue string) float64 {
	t.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "stellmap_raft_dropped_total" && m.GetLabel()[0].GetValue() == queue {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}
