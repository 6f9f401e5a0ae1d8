package storage

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// hashOf is the hash of the state as it is.
func hashOf(t testing.TB, e *Engine) string {
	t.Helper()
	s, err := e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	hash, err := s.Hash(t.Context())
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return hash
}

// Equal states have equal hashes, in whatever batches they came, and whatever
// was overwritten, deleted, flushed, compacted, restarted or restored between.
func TestEqualStatesHaveEqualHashes(t *testing.T) {
	forSeeds(t, 20, func(t *testing.T, random *rand.Rand) {
		state := map[string]string{}
		for range 1 + random.IntN(60) {
			state[fmt.Sprint("key-", random.IntN(100))] = fmt.Sprint(random.Uint64())
		}
		at := Position{1000, 7}
		once := openTestEngine(t, vfs.NewMem())
		var pairs []string
		for k, v := range state {
			pairs = append(pairs, k, v)
		}
		put(t, once, at, pairs...)
		want := hashOf(t, once)

		fs := vfs.NewMem()
		slowly := openTestEngine(t, fs)
		for i := uint64(1); i < 40; i++ { // what is not in the state at the end
			put(t, slowly, Position{i, 1}, fmt.Sprint("key-", random.IntN(120)), fmt.Sprint(i))
			slowly = disturb(t, random, slowly, fs)
		}
		var gone []string
		check(slowly.Scan([]byte("key-"), PrefixEnd([]byte("key-")), func(key, _ []byte) error {
			gone = append(gone, string(key), "")
			return nil
		}))
		put(t, slowly, Position{100, 1}, gone...)
		for i, k := range slices.Sorted(maps.Keys(state)) {
			put(t, slowly, Position{200 + uint64(i), 1}, k, state[k])
			slowly = disturb(t, random, slowly, fs)
		}
		put(t, slowly, at)
		if got := hashOf(t, slowly); got != want || len(want) != 64 {
			t.Errorf("got %s, want %s", got, want)
		}
		if err := errors.Join(once.Close(), slowly.Close()); err != nil {
			t.Fatal(err)
		}
	})
}

// disturb changes nothing of the state.
func disturb(t *testing.T, random *rand.Rand, e *Engine, fs vfs.FS) *Engine {
	t.Helper()
	switch random.IntN(20) {
	case 0, 1:
		check(e.Flush())
	case 2:
		check(e.db.Compact(t.Context(), []byte("a"), []byte("z"), false))
	case 3:
		check(e.Close())
		return openTestEngine(t, fs)
	case 4:
		s := openTestSnapshots(t, newTestDisk(), 1)
		state, err := e.Snapshot()
		check(err)
		m := mustSave(t, s, state)[0]
		check(state.Close())
		r, err := s.Open(m)
		check(err)
		check(errors.Join(e.Restore(r), r.Close()))
	}
	return e
}

// One changed byte of a key or a value, one pair more or less, another position,
// or the same bytes parted otherwise: the hash is another.
func TestDifferentStatesHaveDifferentHashes(t *testing.T) {
	at := Position{10, 2}
	hashes := map[string]string{}
	try := func(at Position, pairs ...string) {
		t.Helper()
		e := openTestEngine(t, vfs.NewMem())
		put(t, e, at, pairs...)
		what := fmt.Sprintf("%v %q", at, pairs)
		hash := hashOf(t, e)
		if other, ok := hashes[hash]; ok {
			t.Errorf("%s has the hash of %s", what, other)
		}
		hashes[hash] = what
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	const key, value = "/services/a/b", "value"
	try(at)
	try(at, key, value)
	try(Position{11, 2}, key, value)
	try(Position{10, 3}, key, value)
	try(at, key, value, key+"x", value)
	try(at, key+"v", "alue")
	try(at, key[:len(key)-1], "b"+value)
	for i := range key {
		try(at, key[:i]+"#"+key[i+1:], value)
	}
	for i := range value {
		try(at, key, value[:i]+"#"+value[i+1:])
	}
}
