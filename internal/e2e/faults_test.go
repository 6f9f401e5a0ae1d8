package e2e

import (
	"math/rand/v2"
	"slices"
	"syscall"
)

// fault is one thing that is done to a cluster under load, and undone again.
type fault struct {
	name     string
	kills    bool // it is a kill; else a pause or something with the network
	network  bool // it needs a network of namespaces
	members  int  // it needs so many
	leader   bool // it takes the leader away: the others go on under another
	noQuorum bool // it leaves no quorum: writes wait for its end
	begin    func(s *scene) (end func())
}

// scene is a cluster at the moment of a fault. The first member leads.
type scene struct {
	c      *cluster
	leader *member
	others []*member // in random order
}

func (s *scene) all() []*member { return append([]*member{s.leader}, s.others...) }

// most is a majority.
func (s *scene) most() []*member { return s.all()[:len(s.c.members)/2+1] }

// faults are all kinds. They are dealt like cards, so that each comes about as often as the others.
var faults = []fault{
	{name: "kill the leader", kills: true, leader: true, begin: func(s *scene) func() { return s.kill(s.leader) }},
	{name: "kill the leader, again", kills: true, leader: true, begin: func(s *scene) func() { return s.kill(s.leader) }},
	{name: "kill a follower", kills: true, begin: func(s *scene) func() { return s.kill(s.others[0]) }},
	{name: "kill a majority", kills: true, noQuorum: true, begin: func(s *scene) func() { return s.kill(s.most()...) }},
	{name: "kill all", kills: true, noQuorum: true, begin: func(s *scene) func() { return s.kill(s.all()...) }},

	{name: "stop the leader", leader: true, begin: func(s *scene) func() { return s.stop(s.leader) }},
	{name: "stop a follower", begin: func(s *scene) func() { return s.stop(s.others[0]) }},
	{name: "stop a majority", noQuorum: true, begin: func(s *scene) func() { return s.stop(s.most()...) }},

	{name: "unplug the leader", network: true, leader: true, begin: func(s *scene) func() { return s.unplug(s.leader) }},
	{name: "unplug a follower", network: true, begin: func(s *scene) func() { return s.unplug(s.others[0]) }},
	{name: "black hole from the leader", network: true, leader: true, begin: func(s *scene) func() { return s.cut(one(s.leader), s.others) }},
	{name: "black hole to the leader", network: true, leader: true, begin: func(s *scene) func() { return s.cut(s.others, one(s.leader)) }},
	{name: "black hole from a follower to the leader", network: true, begin: func(s *scene) func() { return s.cut(s.others[:1], one(s.leader)) }},
	{name: "black-hole routes at the leader", network: true, leader: true, begin: func(s *scene) func() { return s.refuse(s.leader, s.others) }},
	{name: "part the leader from the rest", network: true, leader: true, begin: func(s *scene) func() { return s.part(one(s.leader), s.others) }},
	{name: "part a follower from the rest", network: true, begin: func(s *scene) func() { return s.part(s.others[:1], append(one(s.leader), s.others[1:]...)) }},
	{name: "part the leader from a follower", network: true, begin: func(s *scene) func() { return s.part(one(s.leader), s.others[:1]) }},
	{name: "part minority with the leader from majority", network: true, members: 5, leader: true, begin: func(s *scene) func() {
		return s.part(append(one(s.leader), s.others[0]), s.others[1:])
	}},
	{name: "a ring in which each sees a majority", network: true, members: 5, begin: func(s *scene) func() { return s.ring() }},
}

func one(m *member) []*member { return []*member{m} }

// kill ends members with SIGKILL and starts them again.
func (s *scene) kill(members ...*member) func() {
	s.c.kill(members...)
	return func() {
		for _, m := range members {
			s.c.start(m)
		}
	}
}

// stop makes members stand still. Their sockets stay open.
func (s *scene) stop(members ...*member) func() {
	signal := func(n syscall.Signal) {
		for _, m := range members {
			if err := m.proc.Signal(n); err != nil {
				s.c.t.Fatal(err)
			}
		}
	}
	signal(syscall.SIGSTOP)
	return func() { signal(syscall.SIGCONT) }
}

// unplug takes a member off the network, for clients as well.
func (s *scene) unplug(m *member) func() {
	s.c.lan.unplug(m.id - 1)
	return func() { s.c.lan.plug(m.id - 1) }
}

// cut makes whatever the one send the others vanish. Clients reach all members.
func (s *scene) cut(from, to []*member) func() {
	for _, a := range from {
		for _, b := range to {
			s.c.lan.cut(a.id-1, b.id-1)
		}
	}
	return s.c.lan.heal
}

// part cuts in both directions.
func (s *scene) part(a, b []*member) func() {
	s.cut(a, b)
	return s.cut(b, a)
}

// refuse gives a member black-hole routes to others: its kernel tells it that it cannot send.
func (s *scene) refuse(from *member, to []*member) func() {
	for _, m := range to {
		s.c.lan.refuse(from.id-1, m.id-1)
	}
	return func() {
		for _, m := range to {
			s.c.lan.allow(from.id-1, m.id-1)
		}
	}
}

// ring leaves each member its two neighbours, which are others for each.
func (s *scene) ring() func() {
	all := s.all()
	for i, a := range all {
		for j, b := range all {
			if d := (j - i + len(all)) % len(all); d == 2 || d == 3 {
				s.c.lan.cut(a.id-1, b.id-1)
			}
		}
	}
	return s.c.lan.heal
}

// deck deals faults, all that are allowed before one comes again. Each round
// begins with the loss of a leader, so that a short one has that, too.
type deck struct {
	random *rand.Rand
	cards  []fault
	left   []fault
}

func newDeck(random *rand.Rand, allowed func(fault) bool) *deck {
	cards := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return !allowed(f) })
	return &deck{random: random, cards: cards}
}

func (d *deck) deal() fault {
	if len(d.left) == 0 {
		d.left = slices.Clone(d.cards)
		d.random.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
		first := slices.IndexFunc(d.left, func(f fault) bool { return f.leader })
		if first >= 0 {
			d.left[0], d.left[first] = d.left[first], d.left[0]
		}
	}
	f := d.left[0]
	d.left = d.left[1:]
	return f
}
