package client

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
)

// Picking, for a caller in a zone of a region:
//
// Instances are on three levels, the caller's zone, the rest of his region, and all
// else. A level takes what is left of the traffic by the levels before it, as far as it is
// healthy: a level of which 5 in 7 or more, by weight, are well takes all, and one that has
// lost half takes 70 %, so that those that are left are not overrun. This is how Envoy
// spills from one priority to the next, with its overprovisioning of 140.
// Within a level the weights decide. Suspects are for when nothing better is anywhere.

const overprovisioning = 1.4

// candidate is something to pick, or something that should be there to be picked.
type candidate struct {
	level    int // 0 is the nearest
	weight   int
	standing standing
}

const levels = 3

func levelOf(zone, region, ofZone, ofRegion string) int {
	switch {
	case region != "" && ofRegion != "" && region != ofRegion:
		return 2
	case zone != "" && zone == ofZone:
		return 0
	}
	return 1
}

// chooser picks from candidates by their index. It does not change, so that any number
// may pick at once; to pick costs the logarithm of their number.
type chooser struct {
	index []int     // of those that may be picked
	until []float64 // the sum of the shares up to each; the last is 1
}

func newChooser(all []candidate) *chooser {
	c := &chooser{}
	for _, good := range []standing{well, last} {
		shares := sharesOf(all, good)
		sum := 0.0
		for n, share := range shares {
			if share > 0 {
				sum += share
				c.index, c.until = append(c.index, n), append(c.until, sum)
			}
		}
		if sum > 0 {
			c.until[len(c.until)-1] = 1 // whatever rounding has made of it
			return c
		}
	}
	return c
}

// sharesOf is which part of the traffic each candidate takes, where those of a standing
// are good; all zero where none is.
func sharesOf(all []candidate, good standing) []float64 {
	var able, whole [levels]float64
	for _, c := range all {
		if c.standing != out {
			whole[c.level] += float64(c.weight)
		}
		if c.standing >= good {
			able[c.level] += float64(c.weight)
		}
	}
	load := loads(able, whole)
	shares := make([]float64, len(all))
	for n, c := range all {
		if c.standing >= good && able[c.level] > 0 {
			shares[n] = load[c.level] * float64(c.weight) / able[c.level]
		}
	}
	return shares
}

// loads is which part of the traffic each level takes. Where all of them together could
// not take all of it, they share it by what they could.
func loads(able, whole [levels]float64) (load [levels]float64) {
	left, taken := 1.0, 0.0
	for n := range load {
		if whole[n] == 0 {
			continue
		}
		load[n] = min(left, overprovisioning*able[n]/whole[n])
		left -= load[n]
		taken += load[n]
	}
	for n := range load {
		if taken > 0 {
			load[n] /= taken
		}
	}
	return load
}

// pick is the index of a candidate; false where there is none. r is in [0, 1).
func (c *chooser) pick(r float64) (int, bool) {
	if len(c.index) == 0 {
		return 0, false
	}
	n, found := slices.BinarySearch(c.until, r)
	if found { // a share begins where the one before ends
		n++
	}
	return c.index[min(n, len(c.index)-1)], true
}

// PickFrom says from which endpoints, and for whom, a picker picks.
type PickFrom struct {
	Endpoint string // a name, or else a protocol; "" = the first of each instance
	Zone     string // where the caller is; "" = Config.Zone
	Region   string // "" = Config.Region
}

// Pick is what was picked.
type Pick struct {
	Instance *Instance
	Endpoint Endpoint
}

// Address is host:port.
func (p Pick) Address() string { return p.Endpoint.Address() }

// Picker picks endpoints of a service. Passing and warning instances are picked by
// weight, those of the caller's zone first, then those of his region; suspects where
// there is nothing better; critical, expired, draining and disabled ones never, unless the
// service's policy has them handed out (Instance.Protected).
type Picker struct {
	service *Service
	from    PickFrom
	made    atomic.Pointer[picks]
}

// picks are those of one snapshot.
type picks struct {
	number  uint64
	all     []Pick
	chooser *chooser
}

// Picker makes a picker, which follows the service.
func (s *Service) Picker(from PickFrom) *Picker {
	if from.Zone == "" {
		from.Zone = s.client.config.Zone
	}
	if from.Region == "" {
		from.Region = s.client.config.Region
	}
	return &Picker{service: s, from: from}
}

// Pick picks one. Those that were tried already, in vain, are left out as long as there
// are others. It never waits: what it picks from is in memory, and there while all
// servers are away.
func (p *Picker) Pick(tried ...Pick) (Pick, error) {
	now := p.latest()
	choose := now.chooser
	if len(tried) > 0 {
		if rest := newChooser(p.candidates(now.all, tried)); len(rest.index) > 0 {
			choose = rest // made for one caller who tries again, which is seldom
		}
	}
	n, ok := choose.pick(rand.Float64())
	if !ok {
		return Pick{}, fmt.Errorf("%w: %v has %d with an endpoint %q, and none that callers may be sent to", ErrNone, p.service.query, len(now.all), p.from.Endpoint)
	}
	return now.all[n], nil
}

// latest are the picks of the newest snapshot, made by the first who needs them.
func (p *Picker) latest() *picks {
	now := p.service.Snapshot()
	made := p.made.Load()
	if made != nil && made.number >= now.number {
		return made
	}
	made = &picks{number: now.number}
	for _, i := range now.Instances {
		if e, ok := i.Endpoint(p.from.Endpoint); ok {
			made.all = append(made.all, Pick{i, e})
		}
	}
	made.chooser = newChooser(p.candidates(made.all, nil))
	p.made.Store(made)
	return made
}

// candidates are all picks as this caller sees them. Those that were tried in vain are as
// good as ill.
func (p *Picker) candidates(all, tried []Pick) []candidate {
	out := make([]candidate, len(all))
	for n, one := range all {
		out[n] = candidateOf(one.Instance, one.Endpoint, p.from.Zone, p.from.Region)
		if slices.ContainsFunc(tried, func(t Pick) bool { return t.Address() == one.Address() }) {
			out[n].standing = min(out[n].standing, ill)
		}
	}
	return out
}

func candidateOf(i *Instance, e Endpoint, zone, region string) candidate {
	return candidate{level: levelOf(zone, region, i.Zone, i.Region), weight: max(e.Weight, 1), standing: i.standing()}
}
