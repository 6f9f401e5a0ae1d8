package registry

import (
	"cmp"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var seed = flag.Uint64("seed", 0, "of the random tests; 0 = a new one")

// newRandom is the source of a random test, and prints how to run it again.
func newRandom(t *testing.T) *rand.Rand {
	s := cmp.Or(*seed, uint64(time.Now().UnixNano()))
	t.Logf("seed %d: run it again with -seed=%d", s, s)
	return rand.New(rand.NewPCG(s, 0))
}
