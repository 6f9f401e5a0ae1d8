package peer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// parrot says who it is and what it was asked.
type parrot struct{ id uint64 }

func (p parrot) Answer(_ context.Context, request []byte) ([]byte, error) {
	if string(request) == "no" {
		return nil, errors.New("it does not like the question")
	}
	return fmt.Appendf(nil, "%d: %s", p.id, request), nil
}

// Any member asks any other, also one to which consensus has nothing to say.
func TestMembersAskEachOther(t *testing.T) {
	c := newCluster(t, 3)
	c.informs = func(id uint64) Answerer { return parrot{id} }
	var members []*member
	for id := uint64(1); id <= 3; id++ {
		members = append(members, c.start(id, vfs.NewMem()))
	}
	propose(t, members[0], "before")
	until(t, "all have met", func() bool { return len(members[2].Status().Members) == 3 })
	for i, m := range members {
		for to := uint64(1); to <= 3; to++ {
			if int(to) == i+1 {
				continue
			}
			// Who has just been cut off for a failed start of a connection pauses for a while.
			until(t, fmt.Sprintf("node %d answers node %d", to, i+1), func() bool {
				answer, err := m.transport.Ask(t.Context(), to, Proxies, []byte("hello"))
				return err == nil && string(answer) == fmt.Sprintf("%d: hello", to)
			})
		}
	}
	if _, err := members[0].transport.Ask(t.Context(), 2, Proxies, []byte("no")); err == nil || !strings.Contains(err.Error(), "node 2: it does not like the question") {
		t.Errorf("a refusal is told as %v", err)
	}
	if _, err := members[0].transport.Ask(t.Context(), 2, Regions, []byte("hello")); err == nil || !strings.Contains(err.Error(), "answers no such questions") {
		t.Errorf("a question about what nobody speaks for is answered with %v", err)
	}
	must(t, members[2].stop())
	until(t, "the stopped member is missed", func() bool {
		_, err := members[0].transport.Ask(t.Context(), 3, Proxies, []byte("hello"))
		return err != nil && strings.Contains(err.Error(), "node 3 is not connected")
	})
}

// A member that nobody speaks for says so.
func TestAMemberThatTellsNothing(t *testing.T) {
	c := newCluster(t, 2)
	one := c.start(1, vfs.NewMem())
	c.start(2, vfs.NewMem())
	propose(t, one, "before")
	until(t, "it answers", func() bool {
		_, err := one.transport.Ask(t.Context(), 2, Proxies, nil)
		return err != nil && strings.Contains(err.Error(), "answers no such questions")
	})
}
