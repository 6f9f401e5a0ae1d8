package registry

import (
	"errors"
	"net/netip"
	"testing"
)

// TestAnAddressHasSoManyWatches shows whom the bound holds for, that a place which was
// left is free, and that nothing is kept of who has gone.
func TestAnAddressHasSoManyWatches(t *testing.T) {
	for name, c := range map[string]struct {
		most     int // as it is set
		from     string
		same     string // counted with it
		want     int    // watches that it may have; 0 = any number
		stranger string // who is not
	}{
		"another machine":               {0, "10.0.0.1", "::ffff:10.0.0.1", WatchesPerAddress, "10.0.0.2"},
		"one with IPv6":                 {0, "2001:db8::1", "2001:db8::2", WatchesPerAddress, "2001:db8:0:1::1"},
		"one that has one in its link":  {0, "fe80::1%eth0", "fe80::1%eth1", WatchesPerAddress, "10.0.0.1"},
		"this machine":                  {0, "127.0.0.1", "127.0.0.1", 0, "10.0.0.1"},
		"this machine, where it is set": {3, "127.0.0.1", "::ffff:127.0.0.1", 3, "::1"},
		"another, where it is set":      {3, "10.0.0.1", "10.0.0.1", 3, "10.0.0.2"},
		"nobody knows":                  {3, "", "", 0, "10.0.0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMember(t, newManualClock())
			m.registry.places = newWatchPlaces(c.most)
			address := func(text string) netip.Addr {
				a, _ := netip.ParseAddr(text)
				return a
			}
			var leave []func()
			take := func(from string) error {
				l, err := m.registry.WatchPlace(address(from))
				if err == nil {
					leave = append(leave, l)
				}
				return err
			}
			for n := range 2 * WatchesPerAddress {
				err := take([]string{c.from, c.same}[n%2])
				if full := c.want != 0 && n >= c.want; errors.Is(err, ErrWatches) != full {
					t.Fatalf("watch %d is answered with %v, and %d are allowed", n+1, err, c.want)
				}
			}
			if err := take(c.stranger); err != nil {
				t.Fatalf("another address is kept out as well: %v", err)
			}
			for _, l := range leave {
				l()
			}
			mustEqual(t, "the addresses that are kept", len(m.registry.places.taken), 0)
			if err := take(c.from); err != nil {
				t.Fatalf("a place that was left is not free: %v", err)
			}
		})
	}
}
