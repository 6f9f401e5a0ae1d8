package consensus

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// crowded is which members said last that their disks are nearly full. They say
// so with everything that they send, so a leader hears of it within a tick, and
// a new one with the votes.
type crowded struct {
	mu  sync.Mutex               // held by whoever changes it
	ids atomic.Pointer[[]uint64] // sorted; replaced, never changed
}

func (c *crowded) all() []uint64 {
	if ids := c.ids.Load(); ids != nil {
		return *ids
	}
	return nil
}

func (c *crowded) set(id uint64, low bool) {
	if slices.Contains(c.all(), id) == low {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := slices.Clone(c.all())
	at, there := slices.BinarySearch(ids, id)
	switch {
	case low && !there:
		ids = slices.Insert(ids, at, id)
	case !low && there:
		ids = slices.Delete(ids, at, at+1)
	}
	c.ids.Store(&ids)
}

// Low tells whether this member's disk is nearly full, for the transport to
// pass on.
func (g *Group) Low() bool { return g.config.Low != nil && g.config.Low() }

// HearLow takes in what a member, whose Introduction was accepted, says of its
// own disk. It comes before the messages that it was said with.
func (g *Group) HearLow(from uint64, low bool) { g.crowded.set(from, low) }

// lowMembers are the voters whose disks are nearly full, as far as this member
// has heard, itself included.
func (g *Group) lowMembers() []uint64 {
	f := g.facts.Load()
	low := slices.DeleteFunc(slices.Clone(g.crowded.all()), func(id uint64) bool { return id == g.config.ID || !f.isMember(id) })
	if g.Low() {
		at, _ := slices.BinarySearch(low, g.config.ID)
		low = slices.Insert(low, at, g.config.ID)
	}
	return low
}

// refuseGrowth is why this leader takes in nothing that grows, or nil. That is
// so when its own disk is nearly full, or when every quorum that could commit
// at present has a member whose is. A member that was silent for long has room
// for nothing; but silence alone is no full disk.
func (g *Group) refuseGrowth() error {
	if g.Low() {
		return fmt.Errorf("%w: that of node %d, which leads", ErrFull, g.config.ID)
	}
	if len(g.crowded.all()) == 0 {
		return nil
	}
	low, conf := g.lowMembers(), g.facts.Load().conf
	hasRoom := func(id uint64) bool { return id == g.config.ID || !slices.Contains(low, id) && g.heardLately(id) }
	for _, voters := range [][]uint64{conf.GetVoters(), conf.GetVotersOutgoing()} {
		crowded := slices.ContainsFunc(voters, func(id uint64) bool { return slices.Contains(low, id) })
		if room := count(voters, hasRoom); crowded && room < len(voters)/2+1 {
			return fmt.Errorf("%w: those of nodes %v, without which there is no quorum", ErrFull, low)
		}
	}
	return nil
}

func count(ids []uint64, is func(uint64) bool) int {
	n := 0
	for _, id := range ids {
		if is(id) {
			n++
		}
	}
	return n
}

// heardLately: within the time in which a leader notices that it has no quorum.
func (g *Group) heardLately(id uint64) bool {
	at, ever := g.heard[id]
	return ever && g.ticks-at <= 2*uint64(g.config.ElectionTicks)
}

// grows asks what a command does. What consensus itself writes is small, and
// needed.
func (g *Group) grows(c *call) bool {
	return c.entryKind == kindCommand && (g.config.Grows == nil || g.config.Grows(c.data))
}

// noticeSpace tells the log when this leader begins and ends to refuse.
func (g *Group) noticeSpace() {
	var why error
	if g.leads != 0 {
		why = g.refuseGrowth()
	}
	if full := errors.Is(why, ErrFull); full != g.full {
		g.full = full
		if full {
			g.log.Warn("proposals that grow are refused", "why", why)
		} else {
			g.log.Info("proposals that grow are not refused by this member any more", "leads", g.leads != 0)
		}
	}
}
