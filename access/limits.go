package access

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limits are how much one may take of a member, so that something is left for the others.
// 0 = any amount.
type Limits struct {
	Requests        int // a second, of all together
	RequestsEach    int // … of one identity, or of one address where nobody has proved who he is
	StreamsEach     int // that one identity has open at once, watches among them
	StreamsFrom     int // … one address
	ConnectionsFrom int // that one address has open at once, on all ports
}

// The names of the limits: they are those of the settings.
const (
	limitRequests        = "requests_per_second"
	limitRequestsEach    = "requests_per_second_each"
	limitStreamsEach     = "streams_each"
	limitStreamsFrom     = "streams_per_address"
	limitConnectionsFrom = "connections_per_address"
)

// An Over is somebody who wants more than his share.
type Over struct {
	Limit string        // its name
	Most  int           // what it allows
	After time.Duration // when there will be room; 0 = when something ends
}

func (e *Over) Error() string {
	if e.After == 0 {
		return fmt.Sprintf("limits.%s of this member is %d, and nothing was done: end some, or try another member", e.Limit, e.Most)
	}
	return fmt.Sprintf("limits.%s of this member is %d, and nothing was done: try again in %v, or at another member", e.Limit, e.Most, e.After)
}

// A Rank is when a request is refused, where all together are too many: those of a lower
// one first.
type Rank int

// The ranks.
const (
	RankList  Rank = iota // of many things, and backups
	RankRead              // of one
	RankWrite             // and reports
	RankRenewal
)

// leaves is what a rank leaves of a second's requests to those above it.
var leaves = [...]time.Duration{RankList: time.Second / 2, RankRead: time.Second / 4, RankWrite: time.Second / 10, RankRenewal: 0}

// The bound of what is kept of who has asked lately. Those who are new then share one
// allowance: that of somebody.
const (
	askersMax   = 65_536
	askersSweep = time.Second // how often it is looked who can be forgotten
	newcomers   = ""
)

// A Limiter holds everybody to his share. Each question costs the same, however many
// there are. Of nil, nobody is held to anything.
type Limiter struct {
	limits  Limits
	now     func() time.Time
	refused *prometheus.CounterVec // by limit

	mu          sync.Mutex // guards what follows
	paid        time.Time  // up to here the requests of all are used up
	each        map[string]time.Time
	swept       time.Time
	streams     map[string]int // by identity and by address, which are never called the same
	connections map[string]int // by address
}

// NewLimiter makes one.
func NewLimiter(l Limits, now func() time.Time, r prometheus.Registerer) (*Limiter, error) {
	out := &Limiter{
		limits: l, now: now, each: make(map[string]time.Time), streams: make(map[string]int), connections: make(map[string]int),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "stellmap_limits_refused_total", Help: "What was refused since somebody, or all together, had taken as much as a limit allows."}, []string{"limit"}),
	}
	for _, name := range []string{limitRequests, limitRequestsEach, limitStreamsEach, limitStreamsFrom, limitConnectionsFrom} {
		out.refused.WithLabelValues(name)
	}
	if err := r.Register(out.refused); err != nil {
		return nil, fmt.Errorf("register a metric: %w", err)
	}
	return out, nil
}

// Request takes one request of somebody.
func (l *Limiter) Request(who string, rank Rank) *Over {
	if l == nil {
		return nil
	}
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	who = l.known(who, now)
	mine, over := spend(l.each[who], now, limitRequestsEach, l.limits.RequestsEach, 0)
	if over != nil {
		return l.refuse(over)
	}
	all, over := spend(l.paid, now, limitRequests, l.limits.Requests, leaves[rank])
	if over != nil {
		return l.refuse(over)
	}
	l.paid = all
	if l.limits.RequestsEach > 0 {
		l.each[who] = mine
	}
	return nil
}

// spend takes one of so many a second, a second's at once, from what is used up to some
// time; what is to be left of that second is not touched.
func spend(paid, now time.Time, limit string, most int, leave time.Duration) (time.Time, *Over) {
	if most == 0 {
		return paid, nil
	}
	if paid.Before(now) {
		paid = now
	}
	next := paid.Add(time.Second / time.Duration(most))
	if wait := next.Sub(now) - (time.Second - leave); wait > 0 {
		return paid, &Over{Limit: limit, Most: most, After: wait}
	}
	return next, nil
}

// known is whose allowance somebody uses: his own, if it is kept or there is room for it.
func (l *Limiter) known(who string, now time.Time) string {
	if _, known := l.each[who]; known || len(l.each) < askersMax {
		return who
	}
	if now.Sub(l.swept) >= askersSweep {
		l.swept = now
		maps.DeleteFunc(l.each, func(_ string, paid time.Time) bool { return !paid.After(now) })
	}
	if len(l.each) < askersMax {
		return who
	}
	return newcomers
}

// Stream takes a place for a stream or a watch of somebody from an address, until leave is
// called. Who or from may be empty: it is not counted then.
func (l *Limiter) Stream(who, from string) (leave func(), over *Over) {
	if l == nil {
		return func() {}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if full(l.streams, who, l.limits.StreamsEach) {
		return nil, l.refuse(&Over{Limit: limitStreamsEach, Most: l.limits.StreamsEach})
	}
	if full(l.streams, from, l.limits.StreamsFrom) {
		return nil, l.refuse(&Over{Limit: limitStreamsFrom, Most: l.limits.StreamsFrom})
	}
	enter(l.streams, who)
	enter(l.streams, from)
	return func() { l.leave(l.streams, who, from) }, nil
}

// Connection takes a place for a connection from an address, until leave is called.
func (l *Limiter) Connection(from string) (leave func(), over *Over) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if full(l.connections, from, l.limits.ConnectionsFrom) {
		return nil, l.refuse(&Over{Limit: limitConnectionsFrom, Most: l.limits.ConnectionsFrom})
	}
	enter(l.connections, from)
	return func() { l.leave(l.connections, from) }, nil
}

func full(places map[string]int, of string, most int) bool {
	return of != "" && most > 0 && places[of] >= most
}

func enter(places map[string]int, of string) {
	if of != "" {
		places[of]++
	}
}

func (l *Limiter) leave(places map[string]int, all ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, of := range all {
		if of == "" {
			continue
		}
		if places[of]--; places[of] == 0 {
			delete(places, of)
		}
	}
}

func (l *Limiter) refuse(over *Over) *Over {
	l.refused.WithLabelValues(over.Limit).Inc()
	return over
}
