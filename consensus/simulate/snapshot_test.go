package simulate

import (
	"errors"
	"fmt"
	"time"

	"github.com/stellmap/stellmap/consensus"
)

// Limits of bringing a snapshot.
const (
	snapshotTries    = 10 // streams, before Raft is told that it failed
	snapshotStepTime = time.Second
	snapshotPieces   = 100 // at most, nearly: each takes two messages, and after the faults there are seconds
)

var errBroken = errors.New("simulate: the stream is broken")

// SendSnapshot is the transport's: a file goes piece by piece, and on from where
// the receiver is when the stream breaks.
func (l *life) SendSnapshot(s consensus.OutgoingSnapshot) {
	l.world.spawn(l, "bring", func() {
		err := errBroken
		for tries := 0; err != nil && tries < snapshotTries; tries++ {
			if err = l.bring(s); err != nil {
				l.world.sleep(l.world.between(0, 10*l.world.Tick))
			}
		}
		l.world.tell("%v brings the snapshot at %d to member %d: %v", l.member, s.Index, s.To, err)
		if err == nil {
			l.world.faults.count("snapshot brought")
		}
		l.group.ReportSnapshot(s.To, err == nil)
	})
}

// bring is one stream.
func (l *life) bring(s consensus.OutgoingSnapshot) error {
	w := l.world
	file, err := s.Open()
	if err != nil {
		return err
	}
	there := w.members[s.To-1].life
	var in *consensus.IncomingSnapshot
	at, over := int64(0), false
	defer func() { // also when this process ends while it waits
		if over = true; in != nil {
			w.leave(there, in)
		}
	}()
	err = l.remote(there, func() error {
		one, err := there.group.OfferSnapshot(l.member.id, s.Meta, s.Message)
		switch {
		case err != nil:
			return err
		case over: // a stream that has ended meanwhile
			one.Leave()
			return errBroken
		}
		in, at = one, one.Offset()
		return nil
	})
	if err == nil && at > 0 && at < s.Bytes {
		w.faults.count("snapshot resumed")
	}
	piece := max(int64(16+w.dice.IntN(200)), s.Bytes/snapshotPieces)
	for ; err == nil && at < s.Bytes; at += piece {
		data := make([]byte, min(piece, s.Bytes-at))
		if _, err := file.ReadAt(data, at); err != nil {
			return errors.Join(fmt.Errorf("read the file of the snapshot at byte %d: %w", at, err), file.Close())
		}
		if w.faults.going() && w.chance(0.05) {
			w.faults.count("snapshot broken off")
			err = errBroken
			break
		}
		err = l.remote(there, func() error {
			_, err := in.Write(data)
			return err
		})
	}
	if err == nil {
		err = l.remote(there, in.Finish)
	}
	return errors.Join(err, file.Close())
}

// leave ends a stream on the side of the receiver, if that is there.
func (w *world) leave(there *life, in *consensus.IncomingSnapshot) {
	w.after(w.network.delay(), func() {
		there.hold(func() { w.spawn(there, "receive", in.Leave) })
	})
}

// remote has another process do something, and waits for the answer. A stream
// breaks when either side is gone, or a way is cut, or it takes too long.
func (l *life) remote(there *life, do func() error) error {
	w, n := l.world, &l.world.network
	if there == nil {
		return errBroken
	}
	broken := func(a, b *life) bool { return a.gone() || b.gone() || n.cut[[2]uint64{a.member.id, b.member.id}] }
	err, answered := errBroken, false
	answer := func(e error) { err, answered = e, true }
	w.after(n.delay(), func() {
		if broken(l, there) || !n.introduced(l, there) {
			return
		}
		there.hold(func() {
			w.spawn(there, "receive", func() {
				done := do()
				if !broken(there, l) {
					w.after(n.delay(), func() { answer(done) })
				}
			})
		})
	})
	until := w.now + snapshotStepTime
	w.after(snapshotStepTime, func() {})
	w.park(func() bool { return answered || w.now >= until })
	return err
}
