package registry

import "time"

// What runs out at once is let go bit by bit: when a rack dies, or a new leader
// finds that half of the fleet went with the old one, watchers and proxies are
// told of the loss at a rate that they can follow, and whoever is only late has
// time to renew. So n leases that end together have expired within
// TTL + expiryTick + n/expiryRate.
const (
	expiryRate  = 1_000 // leases a second
	expiryCost  = time.Second / expiryRate
	expiryBurst = pauseMin // of saved up time: a tick that is late loses nothing
)

// An expiryBudget says how many leases may run out. It fills with lease time, so
// that a pause saves nothing up.
type expiryBudget struct {
	cost  time.Duration // of one lease: expiryCost
	spent time.Duration // up to where lease time is spent
	late  time.Duration // how long the lease that has to wait longest has been over, at the last look; 0 = none has to
	waits uint64        // looks after which some had to wait
}

// left is how many leases may run out now.
func (b *expiryBudget) left(now time.Duration) int {
	return int((now - max(b.spent, now-expiryBurst)) / b.cost)
}

func (b *expiryBudget) spend(now time.Duration, leases int) {
	b.spent = max(b.spent, now-expiryBurst) + time.Duration(leases)*b.cost
}

// wait notes that a lease which was over then has to wait.
func (b *expiryBudget) wait(now, deadline time.Duration) {
	b.waits++
	b.late = now - deadline
}
