package simulate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stellmap/stellmap/consensus"
	"github.com/stellmap/stellmap/storage"
)

// activeMax is how many machines there are at a time, at most.
const activeMax = 6

// operate is the life of an operator, who changes the members while all goes
// wrong. Whatever is refused is left at that.
func (c *client) operate() {
	w := c.world
	for w.now < w.Faulty {
		w.sleep(w.between(100*time.Millisecond, 1500*time.Millisecond))
		now := w.membership()
		switch n := w.dice.IntN(12); {
		case n < 3 && len(w.active()) < activeMax:
			w.addMachine()
		case n < 6 && len(now.Learners) > 0:
			c.change("member promoted", consensus.MemberChange{Kind: consensus.Promote, ID: pick(w, now.Learners)})
		case n < 8 && len(now.Learners) > 0:
			c.change("member replaced", consensus.MemberChange{Kind: consensus.Replace, ID: pick(w, now.Voters), By: pick(w, now.Learners)})
		case n < 9 && len(now.Voters) > 2:
			c.change("member removed", consensus.MemberChange{Kind: consensus.Remove, ID: pick(w, append(now.Voters, now.Learners...))})
		case n < 11 && len(now.Voters) > 1:
			c.change("leadership handed over", consensus.MemberChange{Kind: consensus.TransferLeader, ID: pick(w, now.Voters)})
		}
	}
}

func pick(w *world, ids []uint64) uint64 { return ids[w.dice.IntN(len(ids))] }

// change asks any member for a change, perhaps twice: that does no harm.
func (c *client) change(name string, m consensus.MemberChange) {
	w := c.world
	for range 1 + w.dice.IntN(2) {
		c.call(w.anyMember(), func(ctx context.Context, l *life) func() {
			at, err := l.group.ChangeMembers(ctx, m)
			return func() {
				w.tell("%s asks %v for %+v: at %d, %v", c.name, l.member, m, at, err)
				if err == nil {
					w.faults.count(name)
					w.note(name, m.ID, m.By, at)
				}
			}
		})
	}
}

// membership is the newest that any member knows, also of those that are down.
func (w *world) membership() consensus.Status {
	for _, m := range w.members {
		if m.up() && !m.life.ended {
			if s := m.life.group.Status(); s.Applied >= w.newest.Applied {
				w.newest = s
			}
		}
	}
	return w.newest
}

// active are the machines that are not done with.
func (w *world) active() []*member {
	return slices.DeleteFunc(slices.Clone(w.members), func(m *member) bool { return m.retired })
}

// current are the machines that belong to the cluster.
func (w *world) current() []*member {
	now := w.membership()
	return slices.DeleteFunc(slices.Clone(w.members), func(m *member) bool {
		return m.retired || !slices.Contains(now.Voters, m.id) && !slices.Contains(now.Learners, m.id)
	})
}

// addMachine has a new machine ask to be taken in.
func (w *world) addMachine() {
	m := newMember(w, uint64(len(w.members)+1))
	m.newcomer = true
	w.members = append(w.members, m)
	w.faults.count("member added")
	w.tell("%v is new", m)
	m.start()
}

// asks tells whether a machine has to ask to be taken in before it can start.
func (m *member) asks() bool {
	if !m.newcomer || m.told != nil {
		return false
	}
	id, found, err := storage.LoadIdentity(m.disk, "data")
	if err != nil {
		m.world.fail("%v: load the identity: %v", m, err)
	}
	return !found || id.Stage == storage.StageJoining
}

// ask goes round until somebody takes the machine in.
func (m *member) ask() {
	w := m.world
	id, err := m.identity()
	if err != nil {
		w.fail("%v: make an identity: %v", m, err)
		return
	}
	// It has to be up soon after the faults, which two calls to members that have
	// ended would not leave the time for.
	c := &client{world: w, name: fmt.Sprintf("machine-%d", m.id), cut: true}
	for m.told == nil {
		other := w.anyMember()
		if other == m {
			w.sleep(w.Tick)
			continue
		}
		c.call(other, func(ctx context.Context, l *life) func() {
			told, err := l.group.TakeIn(ctx, consensus.Member{ID: m.id, UUID: id.UUID, HTTP: fmt.Sprintf("http-%d", m.id)})
			return func() {
				var refusal *consensus.ChangeRefusal
				switch {
				case err == nil:
					w.tell("%v is taken in", m)
					m.told = &told
				case errors.As(err, &refusal) && refusal.Reason == consensus.ChangeRemoved:
					m.retired, m.told = true, &told
				}
			}
		})
		w.sleep(w.between(0, 300*time.Millisecond))
	}
	if !m.retired {
		m.start()
	}
}

// identity is made at the first start, before anything else.
func (m *member) identity() (storage.Identity, error) {
	lock, err := storage.LockDir(m.disk, "data")
	if err != nil {
		return storage.Identity{}, err
	}
	id, err := m.found()
	return id, errors.Join(err, lock.Close())
}

func (m *member) found() (storage.Identity, error) {
	return consensus.Found(m.identityFile(), consensus.Founding{
		NodeID: m.id, ClusterID: 1, Members: m.world.book(), Join: m.newcomer,
		UUID: func() string { m.uuids++; return fmt.Sprintf("uuid-%d-%d", m.id, m.uuids) },
	})
}

// retire is the end of a machine that was removed.
func (m *member) retire() {
	m.world.tell("%v ends: it was removed", m)
	m.world.faults.count("removed member ends")
	m.retired = true
}
