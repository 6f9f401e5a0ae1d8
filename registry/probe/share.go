package probe

import (
	"hash/fnv"

	"github.com/stellmap/stellmap/registry"
)

// ownerOf is the member that makes the checks of an instance: the one with the
// highest hash of the two (rendezvous hashing). When a member goes only what was
// its own moves, and it moves to all others alike. Members is not empty.
func ownerOf(k registry.InstanceKey, members []uint64) uint64 {
	h := fnv.New64a()
	for _, part := range [...]string{k.Namespace, k.Service, k.ID} {
		h.Write([]byte(part))
		h.Write([]byte{'/'})
	}
	key, owner, highest := h.Sum64(), uint64(0), uint64(0)
	for _, m := range members {
		if score := mix(key ^ mix(m)); owner == 0 || score > highest || score == highest && m > owner {
			owner, highest = m, score
		}
	}
	return owner
}

// mix spreads the bits of a number (the end of splitmix64): those of small ids
// and of similar names would be much alike.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
