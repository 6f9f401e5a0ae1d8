package registry

import (
	"errors"
	"fmt"
	"strings"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
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
	// ErrNoDocument says that nobody has ever written such a document.
	ErrNoDocument = errors.New("registry: no such document")
	// ErrTokenTold says that there is such an access token already: it was told once, to who asked first.
	ErrTokenTold = errors.New("registry: the access token was granted before, and was told then: revoke it, and grant another")
	// ErrVersion says that a document is not as the condition of an edit wants it: nothing was done.
	ErrVersion = errors.New("registry: the document has another version")
	// ErrQuota says that there are as many as there may be: nothing was done.
	ErrQuota = errors.New("registry: the quota is used up")
	// ErrNoLeader says that nobody leads at the moment: nothing was done, and the same call may be tried again.
	ErrNoLeader = errors.New("registry: no leader")
	// ErrBusy says that a bounded queue is full: nothing was done, and the same call may be tried again later.
	ErrBusy = errors.New("registry: too many calls in flight")
	// ErrReportRate says that too many reports have come from one address: nothing was done.
	ErrReportRate = errors.New("registry: too many reports from this address")
	// ErrWatches says that an address has as many watches open on this member as it may.
	ErrWatches = errors.New("registry: too many watches from this address")
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

// A VersionError is an edit whose condition did not hold, and the version to look at.
type VersionError struct {
	What    string // which document
	Version uint64 // that it has now; 0 = nobody has ever written one
}

func (e *VersionError) Error() string {
	if e.Version == 0 {
		return e.What + " was never written, and the edit is for a version: nothing was done"
	}
	return fmt.Sprintf("%s is at version %d, and the edit is for another: nothing was done, read it and edit that", e.What, e.Version)
}

// Unwrap makes it an ErrVersion.
func (e *VersionError) Unwrap() error { return ErrVersion }

// A QuotaError is a limit that has been reached, and says how to raise it.
type QuotaError struct{ why string }

func (e *QuotaError) Error() string { return e.why }

// Unwrap makes it an ErrQuota.
func (e *QuotaError) Unwrap() error { return ErrQuota }

func fullError(namespace string, full *recordv1.Full) error {
	n := full.GetLimit()
	switch full.GetOf() {
	case recordv1.Full_OF_SERVICES:
		return &QuotaError{fmt.Sprintf("namespace %s may have %d services by its quota, and has no fewer: raise quota.services in the namespace's document, or wait until a service without instances is forgotten, a day after its last", quoted(namespace), n)}
	case recordv1.Full_OF_INSTANCES:
		return &QuotaError{fmt.Sprintf("namespace %s may have %d instances by its quota, and has no fewer: raise quota.instances in the namespace's document, or deregister some", quoted(namespace), n)}
	case recordv1.Full_OF_POLICIES:
		return &QuotaError{fmt.Sprintf("there are %d policies, as many as there may be: delete some", n)}
	case recordv1.Full_OF_UPSTREAMS:
		return &QuotaError{fmt.Sprintf("there are %d documents of what services call, as many as there may be: delete some", n)}
	case recordv1.Full_OF_ROLES:
		return &QuotaError{fmt.Sprintf("there are %d roles, as many as there may be: delete some", n)}
	case recordv1.Full_OF_BINDINGS:
		return &QuotaError{fmt.Sprintf("there are %d bindings, as many as there may be: delete some", n)}
	case recordv1.Full_OF_TOKENS:
		return &QuotaError{fmt.Sprintf("there are %d access tokens that are still good, as many as there may be: revoke some", n)}
	}
	return &QuotaError{fmt.Sprintf("there are %d documents of namespaces, as many as there may be: delete some", n)}
}

// A missingError is something that is not there, and says which.
type missingError struct{ why string }

func (e *missingError) Error() string { return e.why }

// Unwrap makes it an ErrNotFound.
func (e *missingError) Unwrap() error { return ErrNotFound }

// missingInstance says what to do, too.
func missingInstance(k InstanceKey, next string) error {
	return &missingError{fmt.Sprintf("instance %q of service %q in namespace %q is not registered: %s", k.ID, k.Service, k.Namespace, next)}
}

// longGone is all that is known of an instance that is not there.
const longGone = "it never was, it was deregistered, or it expired long ago"

// MissingService says that a service is not there.
func MissingService(k ServiceKey) error {
	return &missingError{fmt.Sprintf("service %q in namespace %q is not known: it never was, or its last instance went more than a day ago", k.Service, k.Namespace)}
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
