package registry

import (
	"errors"
	"strings"
)

var (
	// ErrNotFound says that the registry has no such instance, at the revision that the answer carries.
	ErrNotFound = errors.New("registry: no such instance")
	// ErrTokenRequired says that the instance has a lease token and that none was presented: nothing was done.
	ErrTokenRequired = errors.New("registry: a lease token is required")
	// ErrWrongToken says that the lease token that was presented is not the instance's: nothing was done.
	ErrWrongToken = errors.New("registry: the lease token is another's")
	// ErrLeaseNotFound says that there is no such shared lease: it has run out, or was revoked, and all of its instances with it.
	ErrLeaseNotFound = errors.New("registry: no such shared lease")
	// ErrLeasesFull says that there are as many shared leases, or instances under one, as there may be: nothing was done.
	ErrLeasesFull = errors.New("registry: too many shared leases, or instances under one")
	// ErrSharedLease says that the instance lives under a shared lease, which is what can be renewed.
	ErrSharedLease = errors.New("registry: the instance has no lease of its own")
	// ErrNoLeader says that nobody leads at the moment: nothing was done, and the same call may be tried again.
	ErrNoLeader = errors.New("registry: no leader")
	// ErrBusy says that a bounded queue is full: nothing was done, and the same call may be tried again later.
	ErrBusy = errors.New("registry: too many calls in flight")
	// ErrFull says that the disks of too many members are nearly full for anything that grows: nothing was done.
	// It passes by itself when there is room; what makes room is done.
	ErrFull = errors.New("registry: the disks are nearly full")
	// ErrDiverged says that the members' states differ and that nobody knows which is right: nothing was done, and
	// nothing is until an operator has decided.
	ErrDiverged = errors.New("registry: the members' states differ")
	// ErrTooOld says that this member's state is older than a stale read allows, and that no leader confirmed it in time.
	ErrTooOld = errors.New("registry: the state of this member is too old")
	// ErrCursorExpired says that a list can not go on from a cursor: begin it anew, without one.
	ErrCursorExpired = errors.New("registry: the cursor has expired")
	// ErrUnknownOutcome says that the command was sent and its answer was lost: it may or may not take effect.
	ErrUnknownOutcome = errors.New("registry: the outcome is unknown")
	// ErrNotTried says that an item of a batch was left out, since an earlier part of the batch did not pass: nothing was done.
	ErrNotTried = errors.New("registry: not tried after an earlier part of the batch")
	// ErrStopping says that this member is shutting down.
	ErrStopping = errors.New("registry: stopping")
	// ErrCompacted says that the events after a watcher's revision are no longer kept: read the state anew.
	ErrCompacted = errors.New("registry: the watched revision is no longer kept")
)

// A ValidationError lists everything that is wrong with a request, so that a
// caller can mend it in one go. The request has changed nothing.
type ValidationError struct {
	Problems []Problem // never empty, in the order of the request's fields
}

// A Problem is one wrong field.
type Problem struct {
	Field  string // its JSON path, such as "endpoints[1].port", or the name of a query parameter
	Reason string // what is wrong and what is allowed
}

func (e *ValidationError) Error() string {
	var text strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			text.WriteString("; ")
		}
		text.WriteString(p.Field + ": " + p.Reason)
	}
	return text.String()
}

// problems gathers what is wrong while a request is looked through.
type problems []Problem

func (p *problems) add(field, reason string) {
	*p = append(*p, Problem{Field: field, Reason: reason})
}

// err is nil when nothing was found.
func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return &ValidationError{Problems: p}
}
