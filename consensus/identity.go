package consensus

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/stellmap/stellmap/storage"
)

// IdentityFile is where the identity of a data directory is kept: storage's
// functions, bound to a file system and a folder.
type IdentityFile struct {
	Load func() (storage.Identity, bool, error)
	Save func(storage.Identity) error // durable when it returns
	// Occupied tells whether the folder holds a log or a state.
	Occupied func() (bool, error)
}

// Founding is what the first members of a cluster agree on.
type Founding struct {
	NodeID, ClusterID uint64
	Members           []Member
	Join              bool          // this one does not found: it asks to be taken in, see Join
	UUID              func() string // nil = random
}

// Found returns the identity of a data directory, and makes it at the first
// start. It comes before the log and the engine are opened.
//
// A first start has two stages, so that a crash in it can be told from a loss:
// the identity is written as "founding" before anything else, and as "ready" by
// Open when the log and the state have their first content, before anything is
// said to a peer. So a founding directory may begin anew, a ready one without
// log or state has lost them, and a log without an identity is a member that
// lost its name.
func Found(file IdentityFile, f Founding) (storage.Identity, error) {
	if err := f.check(); err != nil {
		return storage.Identity{}, err
	}
	id, found, err := file.Load()
	if err != nil {
		return storage.Identity{}, fmt.Errorf("load the identity: %w", err)
	}
	occupied, err := file.Occupied()
	if err != nil {
		return storage.Identity{}, fmt.Errorf("look for a log: %w", err)
	}
	switch {
	case found:
		return id, f.recognise(id, occupied)
	case occupied:
		return storage.Identity{}, errors.New("the data directory holds a log or a state but no identity.json: it is not known whose votes these are. " +
			"Put the file back, or begin with an empty directory and a node id that was never used")
	}
	return f.begin(file)
}

func (f Founding) check() error {
	if f.NodeID == 0 || f.ClusterID == 0 {
		return errors.New("the node id and the cluster id must be above 0")
	}
	seen := make(map[uint64]bool, len(f.Members))
	for _, m := range f.Members {
		if m.ID == 0 || seen[m.ID] {
			return fmt.Errorf("cluster members: id %d is 0 or there twice", m.ID)
		}
		seen[m.ID] = true
	}
	if !seen[f.NodeID] && !f.Join {
		return fmt.Errorf("node id %d is not among the cluster's members %v", f.NodeID, memberIDs(f.Members))
	}
	return nil
}

// begin writes the first stage.
func (f Founding) begin(file IdentityFile) (storage.Identity, error) {
	if f.Join {
		return f.beginAs(file, storage.StageJoining, "")
	}
	return f.beginAs(file, storage.StageFounding, f.digest())
}

func (f Founding) beginAs(file IdentityFile, stage, founders string) (storage.Identity, error) {
	uuid := f.UUID
	if uuid == nil {
		uuid = randomUUID
	}
	id := storage.Identity{
		NodeID: f.NodeID, ClusterID: f.ClusterID, UUID: uuid(), Stage: stage,
		Founders: founders, Joined: f.Join, Peers: map[uint64]string{},
	}
	if err := file.Save(id); err != nil {
		return storage.Identity{}, fmt.Errorf("save the identity: %w", err)
	}
	return id, nil
}

// recognise checks that a directory is the one that the configuration means.
func (f Founding) recognise(id storage.Identity, occupied bool) error {
	switch {
	case id.NodeID != f.NodeID || id.ClusterID != f.ClusterID:
		return fmt.Errorf("the data directory belongs to node %d of cluster %d, and the configuration says node %d of cluster %d", id.NodeID, id.ClusterID, f.NodeID, f.ClusterID)
	case id.Stage == storage.StageRestoring:
		return errors.New("the data directory is half restored: a `stellmapd restore` into it did not come to its end. Empty it, and restore again")
	case id.Stage == storage.StageJoining && !f.Join:
		return fmt.Errorf("the data directory was begun to join a cluster, and has not got its state yet: start it with `[cluster] join` as before, or begin with an empty directory and a node id that was never used")
	case id.Stage == storage.StageFounding && f.Join:
		return fmt.Errorf("the data directory was begun to found a cluster, not to join one: start it without `[cluster] join`, or begin with an empty directory and a node id that was never used")
	case !id.Joined && !f.Join && foundersOf(id.Founders) != f.digest():
		return fmt.Errorf("the data directory was begun with other first members than %v: the first members of a cluster never change, later ones are added to it", memberIDs(f.Members))
	case id.Stage == storage.StageReady && !occupied:
		return fmt.Errorf("the data directory has lost its log and its state: never start a voter with an empty directory; %s", replaceHint(f.NodeID))
	}
	return nil
}

// digest names the cluster and the ids of its first members. Addresses may change.
func (f Founding) digest() string {
	b := binary.BigEndian.AppendUint64(nil, f.ClusterID)
	for _, id := range memberIDs(f.Members) {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// restoredAs is the founders of a cluster that was restored: nobody who was not
// restored into the same incarnation has the same, be its state old or empty.
func restoredAs(founders, incarnation string) string { return founders + "+" + incarnation }

// foundersOf is the digest alone.
func foundersOf(founders string) string {
	digest, _, _ := strings.Cut(founders, "+")
	return digest
}

func memberIDs(members []Member) []uint64 {
	ids := make([]uint64, len(members))
	for i, m := range members {
		ids[i] = m.ID
	}
	slices.Sort(ids)
	return ids
}

func replaceHint(id uint64) string {
	return fmt.Sprintf("replace it under a new id with `stellmapctl member replace --node-id %d --new-node-id M`", id)
}

// randomUUID is a version 4 UUID.
func randomUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func randomNumber() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// Introduction is who a member says it is, before anything else is said.
type Introduction struct {
	ClusterID   uint64
	Founders    string
	Incarnation string // empty until the cluster has one
	Member      Member
}

// RefusalReason is what is wrong with an Introduction.
type RefusalReason uint8

// Reasons of a Refusal.
const (
	RefusedCluster RefusalReason = iota + 1 // another cluster, other founders, another incarnation
	RefusedUUID                             // the id is bound to another data directory
	RefusedID                               // the id is no member's, or the refuser's own
	RefusedRemoved                          // the id was a member's that was removed
)

// Refusal says why a member is not spoken with.
type Refusal struct {
	Reason RefusalReason
	Text   string
}

func (r *Refusal) Error() string { return r.Text }

// acquaintances are the members that introduced themselves, and the data
// directories that ids are bound to for ever.
type acquaintances struct {
	file IdentityFile

	mu       sync.Mutex // guards what follows; held while the file is written
	identity storage.Identity
	met      map[uint64]Member // with their addresses of today
}

func newAcquaintances(file IdentityFile, id storage.Identity) *acquaintances {
	id.Peers = maps.Clone(id.Peers)
	if id.Peers == nil {
		id.Peers = make(map[uint64]string)
	}
	return &acquaintances{file: file, identity: id, met: make(map[uint64]Member)}
}

// meet binds the id to the UUID, durably, unless it is bound to another. What
// the address book says is certain; what this member saw first is not.
func (a *acquaintances) meet(m Member, inBook bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	bound := a.identity.Peers[m.ID]
	if isAnother(bound, m.UUID) && !inBook {
		return uuidRefusal(m, bound)
	}
	if bound != m.UUID {
		next := a.identity
		next.Peers = maps.Clone(next.Peers)
		next.Peers[m.ID] = m.UUID
		if err := a.file.Save(next); err != nil {
			return fmt.Errorf("save the identity with node %d's: %w", m.ID, err)
		}
		a.identity = next
	}
	a.met[m.ID] = m
	return nil
}

func (a *acquaintances) bound(id uint64, uuid string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return uuid != "" && a.identity.Peers[id] == uuid
}

// boundTo is the UUID of an id; empty when it was never met.
func (a *acquaintances) boundTo(id uint64) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.identity.Peers[id]
}

// all are the members met since the start, by id: what follows from them is
// done in one order.
func (a *acquaintances) all() []Member {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.SortedFunc(maps.Values(a.met), func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
}

// isAnother tells whether an id is bound to another data directory than this one.
func isAnother(bound, uuid string) bool {
	return bound != "" && bound != uuid && !mutant("id_reused_after_wipe")
}

func uuidRefusal(m Member, bound string) error {
	return &Refusal{RefusedUUID, fmt.Sprintf("node id %d belongs to the data directory %s, and this one is %s: its data directory was emptied or replaced. "+
		"Never start a voter with an empty directory; %s", m.ID, bound, m.UUID, replaceHint(m.ID))}
}

// Introduce is what this member says of itself.
func (g *Group) Introduce() Introduction {
	f, self := g.facts.Load(), g.config.Self
	self.Since = f.members[self.ID].Since
	return Introduction{
		ClusterID: g.config.ClusterID, Founders: g.config.Identity.Founders,
		Incarnation: cmp.Or(f.incarnation, g.config.Joining.Incarnation), Member: self,
	}
}

// Greet decides whether to speak with a member. After nil its id is bound to
// its UUID for ever. The error is a *Refusal, or one of the disk, after which
// the member stops.
func (g *Group) Greet(i Introduction) error {
	if err := g.judge(i); err != nil {
		g.metrics.refusals.Inc()
		return err
	}
	if err := g.acquaintances.meet(i.Member, g.facts.Load().members[i.Member.ID].UUID == i.Member.UUID); err != nil {
		if !errors.As(err, new(*Refusal)) {
			g.fail(err)
		}
		g.metrics.refusals.Inc()
		return err
	}
	return nil
}

func (g *Group) judge(i Introduction) error {
	own, facts := g.Introduce(), g.facts.Load()
	m := i.Member
	switch {
	case i.ClusterID != own.ClusterID:
		return &Refusal{RefusedCluster, fmt.Sprintf("this is cluster %d, not %d", own.ClusterID, i.ClusterID)}
	case i.Founders != own.Founders && foundersOf(i.Founders) == foundersOf(own.Founders):
		return &Refusal{RefusedCluster, fmt.Sprintf("this is incarnation %s of cluster %d, and node %d is of incarnation %s: one of the two was restored from a backup apart from the other. "+
			"Restore all members from the same file, the second and later ones with --incarnation", cmp.Or(own.Incarnation, "(none yet)"), own.ClusterID, m.ID, cmp.Or(i.Incarnation, "(none yet)"))}
	case i.Founders != own.Founders:
		return &Refusal{RefusedCluster, fmt.Sprintf("cluster %d was begun with other first members: all members must be configured with the same list", own.ClusterID)}
	case i.Incarnation != "" && own.Incarnation != "" && i.Incarnation != own.Incarnation:
		return &Refusal{RefusedCluster, fmt.Sprintf("this is incarnation %s of cluster %d, not %s: one of the two was restored or recovered apart from the other", own.Incarnation, own.ClusterID, i.Incarnation)}
	case m.ID == own.Member.ID:
		return &Refusal{RefusedID, fmt.Sprintf("node id %d is this node's own: two nodes are configured with one id", m.ID)}
	case facts.members[m.ID].Removed:
		return facts.removalRefusal(m.ID, own.ClusterID)
	case !g.mayBeMember(facts, m):
		return &Refusal{RefusedID, fmt.Sprintf("node id %d is not a member of cluster %d", m.ID, own.ClusterID)}
	case m.UUID == "":
		return &Refusal{RefusedUUID, fmt.Sprintf("node %d did not name its data directory", m.ID)}
	}
	if bound := facts.members[m.ID].UUID; isAnother(bound, m.UUID) {
		return uuidRefusal(m, bound)
	}
	return nil
}

// mayBeMember tells whether the id is a member's, or may be one by an entry that
// has not come here yet: a member that was away must not refuse the leader that
// was taken in meanwhile, and one that is being taken in knows nobody.
func (g *Group) mayBeMember(f *facts, m Member) bool {
	return f.isMember(m.ID) || len(f.conf.GetVoters()) == 0 || m.Since > g.status.Load().Applied
}

// Known tells whether a member with this id and UUID was accepted.
func (g *Group) Known(id uint64, uuid string) bool {
	return g.acquaintances.bound(id, uuid) && !g.facts.Load().members[id].Removed
}

// Refused is told when an accepted member refused this one for what it is: its
// data directory, or that it was removed. Run ends.
func (g *Group) Refused(by uint64, r *Refusal) {
	if r.Reason == RefusedRemoved {
		g.removed()
		return
	}
	g.fail(fmt.Errorf("%w: node %d says: %s", ErrRefused, by, r.Text))
}

// removed ends a member that is none any more.
func (g *Group) removed() { g.fail(removedError(g.config.ID, g.config.ClusterID)) }

func removedError(id, cluster uint64) error {
	return fmt.Errorf("%w: %s", ErrRemoved, removedText(id, cluster))
}

func removedText(id, cluster uint64) string {
	return fmt.Sprintf("node %d was removed from cluster %d for ever, and what is in its data directory is of no use any more. "+
		"To take this machine in again, begin with an empty directory, a node id that was never used and `[cluster] join`", id, cluster)
}
