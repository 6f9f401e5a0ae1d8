package registry

import "cmp"

// Why all instances may be handed out, the unhealthy too.
//
// When most of a service's instances are unhealthy, sending everything to the few
// that are left takes these down as well, and a check that is wrong takes down all
// of them. So a policy can name a threshold: while the healthy are a smaller share
// than that, callers get all, as if they were healthy, and find out by themselves
// who answers. Each instance keeps its own status; what is derived here is only who
// is handed out, and that it is so is a committed fact, equal on every member.
//
// What is draining or disabled was taken out by somebody who meant it: it neither
// counts nor is handed out. Of the expired those count that are kept in view.

// Protection says that all instances of a service are handed out, and why.
type Protection struct {
	Since     int64 // Unix ms
	Healthy   int   // instances that are routable by themselves
	Total     int   // those, the critical ones, and the expired ones in view
	Threshold float64
}

// protects says whether a policy wants all instances handed out.
func (p *Policy) protects(healthy, total int) bool {
	return p != nil && p.ProtectThreshold != nil && float64(healthy) < *p.ProtectThreshold*float64(total)
}

// healthyShare counts what the threshold goes by.
func (svc *serviceState) healthyShare(baseline int) (healthy, total int) {
	for s, n := range svc.tally.status {
		if Status(s).Routable() {
			healthy += int(n)
		}
	}
	total = healthy + int(svc.tally.status[StatusCritical])
	if svc.tally.status[StatusExpired] > 0 {
		total += len(placeholders(svc.own(), baseline-svc.tally.standing()))
	}
	return healthy, total
}

// protect begins or ends the protection of a service, and says whether it did.
func (r *serviceRecord) protect(svc *serviceState, now int64) (turned bool) {
	if svc.policy == nil || svc.policy.ProtectThreshold == nil {
		turned, r.protectedSince = r.protectedSince != 0, 0
		return turned
	}
	switch protected := svc.policy.protects(svc.healthyShare(r.baseline)); {
	case protected == (r.protectedSince != 0):
		return false
	case protected:
		r.protectedSince = now
	default:
		r.protectedSince = 0
	}
	return true
}

// protection is nil where callers get the routable instances only.
func (svc *serviceState) protection() *Protection {
	if !svc.protected() {
		return nil
	}
	p := &Protection{Since: svc.record.protectedSince, Threshold: *svc.policy.ProtectThreshold}
	p.Healthy, p.Total = svc.healthyShare(svc.record.baseline)
	return p
}

func (svc *serviceState) protected() bool { return svc.record.protectedSince != 0 }

// HandsOut says whether callers get an instance only since its service is protected.
func (s *Service) HandsOut(i *Instance) bool {
	if i.Imported != nil {
		return i.Protected // as its own region does
	}
	if s == nil || s.Protected == nil || i.Status != StatusCritical && i.Status != StatusExpired {
		return false
	}
	_, shown := searchID(s.Shown, i.ID)
	return shown
}

// asHandedOut is the instance as a reader gets it.
func (s *Service) asHandedOut(i *Instance) *Instance {
	if i.Protected || !s.HandsOut(i) {
		return i
	}
	handed := *i
	handed.Protected = true
	return &handed
}

// handedOut are the instances that callers get only since the service is protected;
// sorted by id.
func (svc *serviceState) handedOut(record *serviceRecord) []*Instance {
	if record.protectedSince == 0 {
		return nil
	}
	own := svc.own()
	kept := placeholders(own, record.baseline-svc.tally.standing())
	var out []*Instance
	for _, i := range own {
		if _, shown := kept[i]; shown || i.Status == StatusCritical {
			out = append(out, i)
		}
	}
	return out
}

// handOut notes at the changes of a service's instances whether callers get them
// and got them, and tells of those of which nothing but that has changed.
func (t *step) handOut(d *draft, now []*Instance) {
	if len(d.handed) == 0 && len(now) == 0 {
		return
	}
	changed := make(map[string]struct{})
	for at := range t.changes {
		c := &t.changes[at]
		if c.service != d.key || c.op != opPut && c.op != opDelete || cmp.Or(c.instance, c.previous).ofAnother() {
			continue
		}
		if c.previous != nil {
			before := d.handed
			if _, again := changed[c.previous.ID]; again {
				before = now // as its change before has told
			}
			_, c.wasHandedOut = searchID(before, c.previous.ID)
			changed[c.previous.ID] = struct{}{}
		}
		if c.instance != nil {
			_, c.handedOut = searchID(now, c.instance.ID)
			changed[c.instance.ID] = struct{}{}
		}
	}
	t.turned(d, d.handed, now, changed, false)
	t.turned(d, now, d.handed, changed, true)
}

// turned tells of the instances that are among some and not among others, unless
// they have changed anyway.
func (t *step) turned(d *draft, some, others []*Instance, changed map[string]struct{}, handedOut bool) {
	for _, i := range some {
		_, both := searchID(others, i.ID)
		if _, told := changed[i.ID]; both || told {
			continue
		}
		t.change(change{service: d.key, op: opHandOut, instance: i, previous: i, handedOut: handedOut, wasHandedOut: !handedOut})
	}
}

// protected counts the services that are.
func (s *state) protected() int {
	n := 0
	for _, h := range s.holdings {
		n += h.protected
	}
	return n
}
