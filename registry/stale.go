package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// What becomes of the instances of another region when its copy is old.
//
// Nothing, unless a policy says so: the copy is old when the link is cut, which is when
// it may be needed most. A service can have them used after all others from some age on,
// or not at all. How old a copy is moves with time, which Apply does not have, so the
// leader has it committed: only when the age passes what some service with instances of
// the region asks for, and when it is young again. How they are is derived from that,
// here; what the source has said of them is kept beside it and comes back by itself.

// staleness is what the age of a copy has made of an instance. The numbers are stored.
type staleness uint8

const (
	staleNot      staleness = 0
	staleSuspect  staleness = 1 // it is used after all others
	staleWithheld staleness = 2 // it is not used
)

// The words of Failover.Stale.
const (
	StaleKeep     = "keep"     // nothing, whatever the age; the default
	StaleSuspect  = "suspect"  // they are used after all others
	StaleWithhold = "withhold" // they are not used
)

// The bounds of Failover.StaleAfterSeconds. A copy that is followed is up to half a minute old.
const (
	staleSecondsMin = 30
	staleSecondsMax = int64(7 * 24 * time.Hour / time.Second)
)

func (f *Failover) checkStale(bad *problems) {
	within(f.StaleAfterSeconds, "failover.staleAfterSeconds", staleSecondsMin, staleSecondsMax, bad)
	switch f.Stale {
	case "", StaleKeep:
		if f.StaleAfterSeconds != nil {
			bad.add("failover.stale", fmt.Sprintf("is %s, for which failover.staleAfterSeconds has no meaning: give %s or %s, or leave both out", quoted(StaleKeep), StaleSuspect, StaleWithhold))
		}
	case StaleSuspect, StaleWithhold:
		if f.StaleAfterSeconds == nil {
			bad.add("failover.staleAfterSeconds", fmt.Sprintf("is missing: from which age of a region's copy on its instances are stale, %d to %d", staleSecondsMin, staleSecondsMax))
		}
	default:
		bad.add("failover.stale", fmt.Sprintf("%s is not known: %s, %s or %s", quoted(f.Stale), StaleKeep, StaleSuspect, StaleWithhold))
	}
}

// staleAfter is the age from which on instances of other regions are stale; 0 = never.
func (p *Policy) staleAfter() time.Duration {
	if p == nil || p.Failover == nil || p.Failover.StaleAfterSeconds == nil {
		return 0
	}
	return time.Duration(*p.Failover.StaleAfterSeconds) * time.Second
}

// staleness is what a policy makes of an instance of a copy that is so old.
func (p *Policy) staleness(age time.Duration) staleness {
	after := p.staleAfter()
	switch {
	case after == 0 || age < after:
		return staleNot
	case p.Failover.Stale == StaleWithhold:
		return staleWithheld
	}
	return staleSuspect
}

// ToldStatus is what the region of an instance says of it, whatever the age of its copy.
func (i *Instance) ToldStatus() Status {
	if i.Imported == nil || i.Imported.stale == staleNot {
		return i.Status
	}
	return i.Imported.told
}

// aged is an instance of a region as the age of its copy makes it. What its region says
// of it is kept: a worse status is not made better.
func (t *step) aged(i *Instance, to staleness, of *Region) *Instance {
	if i.Imported.stale == to {
		return i
	}
	next, from := *i, *i.Imported
	next.Imported = &from
	told := i.without(func(c Condition) bool { return c.Source == SourceRegion })
	if from.stale == staleNot {
		from.told, from.toldSince = i.Status, i.since()
	}
	next.Status, next.Health = from.told, healthOf(i.Checks(), from.toldSince, told)
	next.Protected = from.handedOut && to != staleWithheld
	if from.stale = to; to == staleNot {
		from.told, from.toldSince = 0, 0
		return &next
	}
	c := Condition{Source: SourceRegion, Status: StatusSuspect, Since: t.entry.Time}
	c.Reason = t.reader.share(fmt.Sprintf("the copy of region %s is older than the %s of the service's policy", of.Key.Region, t.state.services[i.ServiceKey()].policy.staleAfter()))
	if to == staleWithheld {
		c.Status = StatusDisabled
	}
	since := next.StatusSince()
	if worse := max(from.told, c.Status); worse != from.told && (to == staleWithheld || from.told.Routable()) {
		next.Status, since = worse, t.entry.Time
	}
	next.Health = healthOf(i.Checks(), since, append(told, c)) // which is sorted: the source is the last
	return &next
}

// aging are the services of a region that have a word on its age, by the age.
type aging map[time.Duration]map[ServiceKey]struct{}

func (a aging) add(k ServiceKey, p *Policy) {
	after := p.staleAfter()
	if after == 0 {
		return
	}
	if a[after] == nil {
		a[after] = make(map[ServiceKey]struct{})
	}
	a[after][k] = struct{}{}
}

func (a aging) drop(k ServiceKey, p *Policy) {
	after := p.staleAfter()
	if delete(a[after], k); len(a[after]) == 0 {
		delete(a, after)
	}
}

// between are the services to which it makes a difference whether a copy is of one age or
// of the other, sorted.
func (a aging) between(one, other time.Duration) []ServiceKey {
	var out []ServiceKey
	for after, services := range a {
		if after > min(one, other) && after <= max(one, other) {
			for k := range services {
				out = append(out, k)
			}
		}
	}
	slices.SortFunc(out, ServiceKey.Compare)
	return out
}

// passed is the highest age of which some service has a word and that a copy has reached.
func (a aging) passed(age time.Duration) time.Duration {
	var most time.Duration
	for after := range a {
		if after <= age {
			most = max(most, after)
		}
	}
	return most
}

// ageBy has the regions' copies of a service follow another policy.
func (s *state) ageBy(svc *serviceState, p *Policy) {
	for _, of := range s.imports {
		if _, here := of.services[svc.key]; here {
			of.aging.drop(svc.key, svc.policy)
			of.aging.add(svc.key, p)
		}
	}
}

// ageRegion applies that a copy is so old at least. What it makes of more instances than
// one command may change is done when it is asked for again; until then the copy is of
// the age that it was.
func (t *step) ageRegion(c *recordv1.AgeRegion) *recordv1.Result {
	of := t.state.imports[RegionKey{Region: c.GetRegion(), Cluster: c.GetClusterId()}]
	if of == nil {
		return &recordv1.Result{Code: recordv1.Result_CODE_NOT_FOUND}
	}
	next := of.region
	if next.Told != c.GetToldMs() {
		return &recordv1.Result{Code: recordv1.Result_CODE_CURSOR_DIFFERS}
	}
	before := next.Stale
	next.Stale = time.Duration(c.GetStaleMs()) * time.Millisecond
	room := sweepMax
	for _, k := range of.aging.between(before, next.Stale) {
		if room = t.ageCopied(k, &next, room); room < 0 {
			return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: true, More: true}
		}
	}
	if next.Stale == before {
		return &recordv1.Result{Code: recordv1.Result_CODE_OK}
	}
	t.putRegion(&next)
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: true}
}

// ageCopied does what the policy of a service says of a region's instances, as far as
// there is room, and says how much is left; less than none says that there is more to do.
func (t *step) ageCopied(k ServiceKey, of *Region, room int) int {
	svc := t.state.services[k]
	to := svc.policy.staleness(of.Stale)
	copied := t.state.imports[of.Key].services[k]
	if copied[to] == copied.instances() {
		return room
	}
	for _, i := range slices.Clone(svc.instances) {
		if i.Imported == nil || i.Imported.stale == to || i.regionKey() != of.Key {
			continue
		}
		if room == 0 {
			return -1
		}
		t.put(t.aged(i, to, of), i)
		room--
	}
	return room
}

// ageService does what a policy says of the instances of copies that are old already, as
// an edit does all that it has to in a service.
func (t *step) ageService(k ServiceKey) {
	svc := t.state.services[k]
	if svc == nil || svc.abroad.instances == 0 {
		return
	}
	for _, of := range t.state.regionsOf(svc) {
		t.ageCopied(k, of, len(svc.instances))
	}
}

// regionsOf are the copies that a service has instances of, sorted.
func (s *state) regionsOf(svc *serviceState) []*Region {
	var out []*Region
	for _, of := range s.imports {
		if _, here := of.services[svc.key]; here {
			region := of.region
			out = append(out, &region)
		}
	}
	slices.SortFunc(out, func(a, b *Region) int { return a.Key.compare(b.Key) })
	return out
}

// AgeRegion has it committed when the copy of a region has become too old for the policy
// of a service, or young enough again. Where neither is so, it costs nothing.
func (r *Registry) AgeRegion(ctx context.Context, k RegionKey) error {
	for {
		told, stale, due := r.dueAge(k)
		if !due {
			return nil
		}
		_, reply, err := r.propose(ctx, "", ageCommand(k, told, stale))
		if err != nil {
			return fmt.Errorf("say how old the copy of region %s is: %w", quoted(k.Region), err)
		}
		if err := regionRefused(reply); errors.Is(err, ErrCursorDiffers) || !reply.GetMore() {
			return nil // it was heard meanwhile, and is looked at again
		}
	}
}

func ageCommand(k RegionKey, told int64, stale time.Duration) []byte {
	return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_AgeRegion{AgeRegion: &recordv1.AgeRegion{
		Region: k.Region, ClusterId: k.Cluster, ToldMs: told, StaleMs: stale.Milliseconds(),
	}}})
}

// dueAge is what there is to say of a copy's age, as it was last told.
func (r *Registry) dueAge(k RegionKey) (told int64, stale time.Duration, due bool) {
	m := r.machine
	m.mu.RLock()
	defer m.mu.RUnlock()
	of := m.published.imports[k]
	if of == nil {
		return 0, 0, false
	}
	age, known := r.RegionAge(of.region)
	if !known {
		return 0, 0, false
	}
	stale = of.aging.passed(age)
	return of.region.Told, stale, stale > of.region.Stale || age < of.region.Stale
}
