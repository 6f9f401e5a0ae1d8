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

	mu    sync.Mutex // guards what follows
	taken map[netip.Addr]int
}

func newWatchPlaces(most int) *watchPlaces {
	return &watchPlaces{most: most, taken: make(map[netip.Addr]int)}
}

// take takes a place; false when the address has as many as it may.
func (p *watchPlaces) take(from netip.Addr) bool {
	most := p.most
	if most == 0 {
		most = WatchesPerAddress
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[from] >= most {
		return false
	}
	p.taken[from]++
	return true
}

func (p *watchPlaces) leave(from netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[from]--; p.taken[from] == 0 {
		delete(p.taken, from)
	}
}

// counts says whether an address is counted. One that is not known is no other machine's.
func (p *watchPlaces) counts(from netip.Addr) bool {
	return from.IsValid() && (p.most != 0 || !from.IsLoopback())
}

// clientOf is the address that stands for a client: of IPv6 its network, since a client
// has all addresses in it.
func clientOf(from netip.Addr) netip.Addr {
	from = from.Unmap().WithZone("")
	if from.Is6() && !from.IsLoopback() {
		return netip.PrefixFrom(from, clientNetworkBits).Masked().Addr()
	}
	return from
}

// clientNetworkBits are those of an IPv6 address that a client cannot choose.
const clientNetworkBits = 64

// WatchPlace is a place for a watch from an address, until leave is called; ErrWatches
// when the address has as many as it may.
func (r *Registry) WatchPlace(from netip.Addr) (leave func(), err error) {
	from = clientOf(from)
	if !r.places.counts(from) {
		return func() {}, nil
	}
	if !r.places.take(from) {
		r.machine.metrics.watchesRefused.Inc()
		return nil, ErrWatches
	}
	return func() { r.places.leave(from) }, nil
}
