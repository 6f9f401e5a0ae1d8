package registry

// A Query says which instances are wanted. All that is given must match.
type Query struct {
	Namespace   string      // required
	Services    []string    // any of these; none = all
	Prefixes    []string    // any of these, textually; none = all
	Levels      Levels      // some of them, without a gap from the organization on
	Zone        string      // exact
	Endpoint    string      // a name or a protocol; of each instance only the matching endpoints are answered
	Selectors   []string    // label selectors, all of which must match; a comma is "and" too
	Labels      []string    // key=value, all of which must match
	Limit       int         // 0 = none; applied last
	AllStatuses bool        // the ones that nobody may be sent to as well
	Consistency Consistency // linearizable unless asked otherwise
}

// Consistency says how fresh a read must be.
type Consistency uint8

const (
	// Linearizable reads see every write that was acknowledged before they began.
	Linearizable Consistency = iota
	// Stale reads see whatever this member has applied, and need no leader.
	Stale
)
