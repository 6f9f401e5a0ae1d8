package registry

import (
	"net/netip"
	"sync"
)

// How many watches an address may have open on this member, over whatever surface. A
// member has room for tens of thousands, and one client that opens them and forgets them,
// as a loop without a close does, would take it from all others.

// WatchesPerAddress is how many, unless it is set. What comes from this machine itself
// is not counted then: nobody is kept out by it who could not do worse.
const WatchesPerAddress = 1_000

// watchPlaces are the places that addresses have taken. There are no more addresses than
// there are watches.
type watchPlaces struct {
	most int // for every address; 0 = WatchesPerAddress for those of other machines

	mu    sync.Mutex     // guards what follows
	taken map[string]int // by network
}

func newWatchPlaces(most int) *watchPlaces {
	return &watchPlaces{most: most, taken: make(map[string]int)}
}

// take takes a place; false when the address has as many as it may.
func (p *watchPlaces) take(network string) bool {
	most := p.most
	if most == 0 {
		most = WatchesPerAddress
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[network] >= most {
		return false
	}
	p.taken[network]++
	return true
}

func (p *watchPlaces) leave(network string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[network]--; p.taken[network] == 0 {
		delete(p.taken, network)
	}
}

// counts says whether an address is counted. One that is not known is no other machine's.
func (p *watchPlaces) counts(from netip.Addr) bool {
	return from.IsValid() && (p.most != 0 || !from.Unmap().IsLoopback())
}

// WatchPlace is a place for a watch from an address, until leave is called; ErrWatches
// when the address has as many as it may.
func (r *Registry) WatchPlace(from netip.Addr) (leave func(), err error) {
	if !r.places.counts(from) {
		return func() {}, nil
	}
	network := NetworkOf(from)
	if !r.places.take(network) {
		r.machine.metrics.watchesRefused.Inc()
		return nil, ErrWatches
	}
	return func() { r.places.leave(network) }, nil
}
