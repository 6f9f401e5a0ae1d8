package registry

// An Event is one change. Every event of a revision is published at once.
type Event struct {
	Revision Revision
	Order    int // within its revision, from 0
	Kind     EventKind
	Service  ServiceKey
	Instance *Instance // after the change; nil unless Kind is EventInstancePut
	Previous *Instance // before it; nil when there was none, and for services

	// Whether callers got it although it was not routable, since its service was
	// protected: after the change and before it. When that turns for an instance which
	// is otherwise as it was, this is what its event tells.
	HandedOut, WasHandedOut bool
}

// EventKind says what has changed.
type EventKind uint8

const (
	// EventInstancePut is an instance that is new or differs from before, its status included, or is handed out otherwise than before.
	EventInstancePut EventKind = iota + 1
	// EventInstanceDelete is an instance that is gone.
	EventInstanceDelete
	// EventServicePut is a service that is new, has a new endpoint name, shows fewer placeholders, has lost an override of an instance that is gone, or hands out all instances or no longer does.
	EventServicePut
	// EventServiceDelete is a service that is gone with all that was known of it, but its policy.
	EventServiceDelete
	// EventPolicy is a policy that was edited, whether its service is there or not.
	EventPolicy
	// EventUpstreams is an edit of what a service wants to call and may, whether it is there or not.
	EventUpstreams
)

// String is for logs and tests.
func (k EventKind) String() string {
	switch k {
	case EventInstancePut:
		return "instance-put"
	case EventInstanceDelete:
		return "instance-delete"
	case EventServicePut:
		return "service-put"
	case EventServiceDelete:
		return "service-delete"
	case EventPolicy:
		return "policy"
	case EventUpstreams:
		return "upstreams"
	}
	return "unknown"
}

// A Batch is what a watcher is told at once: whole revisions, in order.
type Batch struct {
	Revision Revision // everything up to here has been told
	Events   []Event  // none = the revision moved without a change
}
