package registry

import (
	"context"
	"errors"
)

// A Refusal is what callers are told of an error, by whatever surface they came in.
type Refusal struct {
	Code  string // for programs: it does not change
	Title string
	Says  string // "" = the error's own words
	Retry bool   // the same call may work in a moment

	is error
}

// Words are what a caller is told of an error that is answered so.
func (r *Refusal) Words(err error) string {
	if r.Says == "" {
		return err.Error()
	}
	return r.Says
}

// refusals is the table of everything that can go wrong here, but for what callers
// wrote and what nobody foresaw. The first that an error is counts.
var refusals = [...]Refusal{
	{is: ErrNotFound, Code: "not_found", Title: "Not found"},
	{is: ErrNobody, Code: "unauthenticated", Title: "Who asks is not known",
		Says: "who asks is not known, nothing was done: bring a certificate of the mesh, or send an access token as Authorization: Bearer <token>"},
	{is: ErrDenied, Code: "forbidden", Title: "Forbidden"},
	{is: ErrTokenRequired, Code: "lease_token_required", Title: "Lease token required",
		Says: "what is to be changed is held with a lease token and the call has none, nothing was done: send the token that its registration was answered with as X-StellMap-Lease-Token (leaseToken in an item of a batch, lease_token over gRPC); anyone may register an instance once its lease has run out; an operator does it with force=true and the admin token"},
	{is: ErrWrongToken, Code: "wrong_lease_token", Title: "Wrong lease token",
		Says: "it is held with another lease token, nothing was done: somebody else has registered it, who lives on or has taken your place after your lease had run out; use another instanceId, or stop; an operator does it with force=true and the admin token"},
	{is: ErrLeaseNotFound, Code: "lease_not_found", Title: "Lease not found",
		Says: "there is no such lease: it never was, it was revoked, or it has run out, and all of its instances with it; make a new one and register them under it"},
	{is: ErrSharedLease, Code: "shared_lease", Title: "Shared lease",
		Says: "the instance lives under a lease that it shares with others, its leaseId says which: renew that, POST /api/v2/leases/{leaseId}/renew"},
	{is: ErrLeasesFull, Code: "leases_full", Title: "Too many leases",
		Says: "there are as many shared leases, or as many instances under this one, as there may be: nothing was done; use another lease, or revoke one that is not used"},
	{is: ErrNoDocument, Code: "not_found", Title: "Not found"},
	{is: ErrNoRegion, Code: "not_found", Title: "Not found",
		Says: "there is no copy of this region, and was never one: GET /api/v2/federation lists them"},
	{is: ErrCursorDiffers, Code: "busy", Title: "Too busy", Retry: true,
		Says: "the region is being told all there is, which decides anew what may go: nothing was done, try again when it is at its end"},
	{is: ErrTokenTold, Code: "token_told", Title: "Access token told before",
		Says: "there is such an access token already, and it was told once, to who asked first: revoke it, and grant another"},
	{is: ErrVersion, Code: "version_differs", Title: "Another version"},
	{is: ErrQuota, Code: "quota_exceeded", Title: "Quota exceeded"},
	{is: ErrCompacted, Code: "revision_expired", Title: "Revision expired",
		Says: "not all that came after the revision is known here any more: read the state anew, and watch from its revision"},
	{is: ErrCursorExpired, Code: "cursor_expired", Title: "Cursor expired"},
	{is: ErrBusy, Code: "busy", Title: "Too busy", Retry: true,
		Says: "too many calls are waiting on this member: nothing was done, try again later or at another member"},
	{is: ErrOver, Code: "too_many_requests", Title: "Too many requests", Retry: true},
	{is: ErrReportRate, Code: "too_many_reports", Title: "Too many reports", Retry: true,
		Says: "too many reports have come from this address: this one was not taken, report an instance once in a few seconds"},
	{is: ErrWatches, Code: "too_many_watches", Title: "Too many watches", Retry: true,
		Says: "this address has as many watches open on this member as it may: close those that are not needed, or have one watch for several services"},
	{is: ErrFull, Code: "disk_full", Title: "Insufficient storage", Retry: true,
		Says: "the disks of too many members are nearly full: nothing was done, and nothing that grows is until there is room; reading, heartbeats and deregistration go on"},
	{is: ErrDiverged, Code: "states_differ", Title: "The members' states differ",
		Says: "the members compared their states, and no state has a majority: nothing was done, and nothing is written until an operator has made a new cluster from the right one"},
	{is: ErrTooOld, Code: "too_old", Title: "Too old", Retry: true,
		Says: "what this member knows is older than max_staleness allows, and no leader with a quorum was found to confirm it: ask another member, or allow more"},
	{is: ErrNoLeader, Code: "no_leader", Title: "No leader", Retry: true,
		Says: "no leader with a quorum was found in time: nothing was done, try again"},
	{is: ErrNotTried, Code: "not_tried", Title: "Not tried", Retry: true,
		Says: "an earlier part of the batch did not pass, so this one was not tried: nothing was done, try again"},
	{is: ErrStopping, Code: "stopping", Title: "Stopping", Retry: true,
		Says: "this member is shutting down: nothing was done, try another member"},
	{is: ErrUnknownOutcome, Code: "unknown_outcome", Title: "Unknown outcome",
		Says: "the write was sent and its answer was lost, it may or may not take effect: read before you try again, or in v2 repeat it with the same Idempotency-Key, over gRPC with the same idempotency_key"},
}

// The codes of what is in no table.
const (
	CodeBadRequest = "bad_request"
	CodeInternal   = "internal"
)

var (
	badRequest = Refusal{Code: CodeBadRequest, Title: "Bad request"}
	internal   = Refusal{Code: CodeInternal, Title: "Internal error",
		Says: "something went wrong inside this member; its log says what"}
)

// Refusals are all that there are.
func Refusals() []Refusal {
	return append(refusals[:len(refusals):len(refusals)], badRequest, internal)
}

// RefusalOf finds how an error is answered. A call that ran out of time after it
// was sent has an unknown outcome, unless it only reads.
func RefusalOf(err error, reads bool) *Refusal {
	var invalid *ValidationError
	if errors.As(err, &invalid) {
		return &badRequest
	}
	for i := range refusals {
		if r := &refusals[i]; errors.Is(err, r.is) && !(reads && r.is == ErrUnknownOutcome) {
			return r
		}
	}
	late := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	switch {
	case reads && (late || errors.Is(err, ErrUnknownOutcome)):
		return RefusalOf(ErrNoLeader, reads)
	case late:
		return RefusalOf(ErrUnknownOutcome, reads)
	}
	return &internal
}
