package simulate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/stellmap/stellmap/consensus"
)

// network carries what members send each other. It loses, repeats and reorders;
// ways can be cut, each direction by itself.
type network struct {
	world *world
	cut   map[[2]uint64]bool // from, to
	slow  time.Duration      // what all messages take besides
	loss  float64            // at the moment
	usual float64            // loss when nothing is wrong
	twice float64            // chance of a message to be repeated
	known map[[2]*life]bool  // introduced to each other
}

func newNetwork(w *world) network {
	return network{world: w, cut: make(map[[2]uint64]bool), loss: w.Loss, usual: w.Loss, twice: w.Repeat, known: make(map[[2]*life]bool)}
}

// delay is what one message takes.
func (n *network) delay() time.Duration {
	w := n.world
	d := w.between(w.Latency/4, w.Latency*2) + n.slow
	if w.dice.IntN(50) == 0 { // so that it is overtaken
		w.faults.count("message delayed")
		d += w.between(0, 8*w.Tick)
	}
	return d
}

// Send is the transport of a member.
func (l *life) Send(messages []consensus.Outgoing) {
	if l.dead {
		return
	}
	n := &l.world.network
	for _, m := range messages {
		l.world.checks.sent(l, m)
		n.send(l, m)
		if l.world.chance(n.twice) {
			l.world.faults.count("message repeated")
			n.send(l, m)
		}
	}
}

func (n *network) send(from *life, m consensus.Outgoing) {
	w := n.world
	if n.cut[[2]uint64{from.member.id, m.To}] {
		w.faults.count("message cut off")
		if w.chance(0.1) {
			from.group.ReportUnreachable(m.To)
		}
		return
	}
	if w.chance(n.loss) {
		w.faults.count("message lost")
		return
	}
	w.after(n.delay(), func() { n.deliver(from, m) })
}

func (n *network) deliver(from *life, m consensus.Outgoing) {
	w := n.world
	to := w.members[m.To-1].life
	if to == nil || to.dead || n.cut[[2]uint64{from.member.id, m.To}] {
		if !from.gone() && w.chance(0.3) {
			from.group.ReportUnreachable(m.To)
		}
		return
	}
	if !n.introduced(from, to) {
		return
	}
	w.note("deliver", from.member.id, m.To, hash(m.Data))
	to.hold(func() {
		if err := to.group.Receive(from.member.id, [][]byte{m.Data}); err != nil {
			w.fail("%v refuses a message of %v: %v", to.member, from.member, err)
		}
	})
}

// introduced is the handshake of two processes, both ways, before which nothing is delivered.
func (n *network) introduced(from, to *life) bool {
	if n.known[[2]*life{from, to}] && to.group.Known(from.member.id, from.uuid) {
		return true
	}
	if from.gone() { // nobody shakes hands with the dead
		return false
	}
	accepts := func(a, b *life) bool {
		err := a.group.Greet(b.group.Introduce())
		var r *consensus.Refusal
		switch {
		case err == nil, a.dead, b.dead:
			return !a.dead && !b.dead
		case errors.As(err, &r) && r.Reason == consensus.RefusedUUID && b.member.emptied:
			n.refused(a, b, r)
		case !errors.As(err, &r) && a.member.broken: // its disk refused to write it down
		case errors.As(err, &r) && r.Reason == consensus.RefusedRemoved:
			n.refused(a, b, r)
		case errors.As(err, &r) && r.Reason == consensus.RefusedID && n.world.Changes:
			n.world.faults.count("stranger refused")
		default:
			n.world.fail("%v does not speak with %v: %v", a.member, b.member, err)
		}
		return false
	}
	if !accepts(to, from) || !accepts(from, to) {
		return false
	}
	n.known[[2]*life{from, to}], n.known[[2]*life{to, from}] = true, true
	return true
}

// refused tells a member that it was removed, if it would speak with who says so.
func (n *network) refused(by, who *life, r *consensus.Refusal) {
	if err := who.group.Greet(by.group.Introduce()); err == nil && !who.gone() {
		who.group.Refused(by.member.id, r)
	}
}

// Forward asks another member. What the network eats is not sent, or waited for in vain.
func (l *life) Forward(ctx context.Context, to uint64, r consensus.ForwardRequest) (consensus.ForwardReply, error) {
	w, n := l.world, &l.world.network
	other := w.members[to-1]
	if l.dead || other.life == nil || other.life.dead || n.cut[[2]uint64{l.member.id, to}] && w.chance(0.5) {
		return consensus.ForwardReply{}, consensus.ErrNotSent
	}
	var reply consensus.ForwardReply
	var err error
	answered := false
	lost := func(a, b uint64) bool { return n.cut[[2]uint64{a, b}] || w.chance(n.loss) }
	if !lost(l.member.id, to) {
		w.after(n.delay(), func() {
			there := other.life
			if there == nil || there.dead || !n.introduced(l, there) {
				return
			}
			// The deadline travels with the request.
			w.spawn(there, "forwarded", func() {
				got, failed := there.group.HandleForward(ctx, r)
				if there.dead || lost(to, l.member.id) {
					return
				}
				w.after(n.delay(), func() { reply, err, answered = got, asSeen(failed), true })
			})
		})
	}
	w.park(func() bool { return answered || ctx.Err() != nil })
	if !answered {
		return consensus.ForwardReply{}, ctx.Err()
	}
	return reply, err
}

// asSeen is what is left of an error on its way: the meanings that the interface
// of a transport names, and a text.
func asSeen(err error) error {
	if err == nil {
		return nil
	}
	for _, meaning := range []error{consensus.ErrNotLeader, consensus.ErrBusy, consensus.ErrFull, consensus.ErrTooLarge, consensus.ErrDiverged} {
		if errors.Is(err, meaning) && !errors.Is(err, consensus.ErrUnknownOutcome) {
			return fmt.Errorf("%w: %v", meaning, err)
		}
	}
	return errors.New(err.Error())
}

func messageOf(data []byte) *pb.Message {
	m := new(pb.Message)
	if err := proto.Unmarshal(data, m); err != nil {
		panic(fmt.Sprintf("simulate: a member sends what is no message: %v", err))
	}
	return m
}
