package probe

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stellmap/stellmap/registry"
)

// TestOnlyTheShareOfWhoGoesMoves shows that members share alike, that one who goes
// leaves his share to all the others, and that one who comes takes from all.
func TestOnlyTheShareOfWhoGoesMoves(t *testing.T) {
	const instances = 20_000
	members := []uint64{1, 2, 3, 4, 5}
	fewer := []uint64{1, 2, 4, 5}
	have, moved := make(map[uint64]int), make(map[uint64]int)
	for n := range instances {
		k := registry.InstanceKey{Namespace: "prod", Service: fmt.Sprint("s", n%100), ID: fmt.Sprint("10.0.0.", n)}
		owner, then := ownerOf(k, members), ownerOf(k, fewer)
		have[owner]++
		if owner != 3 && then != owner {
			t.Fatalf("%v moves from member %d to %d, since member 3 has gone", k, owner, then)
		}
		if owner == 3 {
			moved[then]++
		}
		slices.Reverse(members)
		mustEqual(t, "the owner, the members told in another order", ownerOf(k, members), owner)
	}
	for _, m := range members {
		if n := have[m]; n < instances/5*9/10 || n > instances/5*11/10 {
			t.Errorf("member %d has %d of %d", m, n, instances)
		}
	}
	for _, m := range fewer {
		if n := moved[m]; n < have[3]/4*8/10 || n > have[3]/4*12/10 {
			t.Errorf("member %d takes over %d of %d", m, n, have[3])
		}
	}
}
