package registry

import (
	"context"
	"fmt"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// The bounds of what is said of an instance.
const (
	reasonBytesMax  = 512
	byBytesMax      = 253
	drainSecondsMax = int64(24 * time.Hour / time.Second)
)

// ConditionsPerCommand is how many changes SetConditions makes at once.
const ConditionsPerCommand = commandItemsMax

// DrainDefault is how long a drained instance is kept when nothing else is asked for.
const DrainDefault = time.Minute

// An Override is an operator's word on an instance.
type Override struct {
	Status string // passing, warning, critical or disabled
	Reason string // for people; optional
	By     string // who says so
}

// A Drain takes an instance out of use.
type Drain struct {
	Seconds int64 // until it is removed, up to a day; 0 = DrainDefault
	Reason  string
	By      string
}

// Override sets an operator's word on an instance: it overrules checks, reports
// and self-preservation, and disabled overrules everything. It lasts until it is
// cleared, across registrations and the removal of the instance, as long as the
// service is known. The error is ErrNotFound when there is no such instance.
func (r *Registry) Override(ctx context.Context, requestID string, ref InstanceRef, o Override) (Result, error) {
	var bad problems
	n := ref.normalize(&bad)
	status := overrideStatus(o.Status, &bad)
	reason, by := normalizeSaid(o.Reason, o.By, &bad)
	if err := bad.err(); err != nil {
		return Result{}, err
	}
	return r.say(ctx, requestID, "override", ConditionChange{
		Key: n.instanceKey(), Condition: Condition{Source: SourceOperator, Status: status, Reason: reason, By: by},
	})
}

// ClearOverride takes an operator's word back, be the instance there or not. To
// clear what is not there is no error: nothing has changed then.
func (r *Registry) ClearOverride(ctx context.Context, requestID string, ref InstanceRef) (Result, error) {
	return r.unsay(ctx, requestID, "clear the override", ref, Condition{Source: SourceOperator, Status: StatusPassing})
}

// Drain has callers leave an instance: its status is draining from now on,
// whoever registers or renews it, until its time is over and it is removed, or the
// drain is taken back. To drain again sets the time anew. The error is
// ErrNotFound when there is no such instance.
func (r *Registry) Drain(ctx context.Context, requestID string, ref InstanceRef, d Drain) (Result, error) {
	var bad problems
	n := ref.normalize(&bad)
	if d.Seconds < 0 || d.Seconds > drainSecondsMax {
		bad.add("seconds", fmt.Sprintf("%d is not allowed: 1 to %d, or 0 for %d", d.Seconds, drainSecondsMax, int64(DrainDefault/time.Second)))
	}
	reason, by := normalizeSaid(d.Reason, d.By, &bad)
	if err := bad.err(); err != nil {
		return Result{}, err
	}
	lasts := time.Duration(d.Seconds) * time.Second
	if lasts == 0 {
		lasts = DrainDefault
	}
	return r.say(ctx, requestID, "drain", ConditionChange{
		Key: n.instanceKey(), Holder: n.Holder, For: lasts, Condition: Condition{Source: SourceDrain, Status: StatusDraining, Reason: reason, By: by},
	})
}

// Undrain takes a drain back. It is no error that there is none.
func (r *Registry) Undrain(ctx context.Context, requestID string, ref InstanceRef) (Result, error) {
	return r.unsay(ctx, requestID, "take the drain back", ref, Condition{Source: SourceDrain, Status: StatusPassing})
}

func (r *Registry) unsay(ctx context.Context, requestID, what string, ref InstanceRef, c Condition) (Result, error) {
	k, err := ref.key()
	if err != nil {
		return Result{}, err
	}
	return r.say(ctx, requestID, what, ConditionChange{Key: k, Holder: ref.Holder, Condition: c, Clear: true})
}

func (r *Registry) say(ctx context.Context, requestID, what string, change ConditionChange) (Result, error) {
	verb := VerbOverride
	if change.Condition.Source == SourceDrain {
		verb = VerbDrain
	}
	if err := change.Key.permit(ctx, verb); err != nil {
		return Result{}, err
	}
	result, reply, err := r.propose(ctx, requestID, conditionsCommand([]ConditionChange{change}))
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", what, err)
	}
	switch reply.GetCode() {
	case recordv1.Result_CODE_NOT_FOUND:
		return result, missingInstance(change.Key, longGone)
	case recordv1.Result_CODE_OVERRIDES_FULL:
		return result, &ValidationError{Problems: []Problem{{
			Field:  "status",
			Reason: fmt.Sprintf("would give service %s more than %d overrides, those of instances that are gone included: clear some first", quoted(change.Key.Service), overridesMax),
		}}}
	}
	return result, change.Holder.judge(reply)
}

// A ConditionChange is what one of the cluster's own parties says of an instance, or takes back.
type ConditionChange struct {
	Key       InstanceKey
	Holder    Holder        // whose call it is; the zero one for this process's own parties
	Condition Condition     // of which Since and Until are not looked at
	For       time.Duration // from the entry's time on; 0 = until it is cleared
	Clear     bool
	Lease     Revision // the generation of the lease that it was seen with; 0 = any
	Seen      Status   // the status of the condition that it takes the place of, passing for none; 0 = any
}

// A ConditionOutcome is what became of a change.
type ConditionOutcome uint8

const (
	// ConditionDone is a change that was made, or that made no difference.
	ConditionDone ConditionOutcome = iota
	// ConditionNoInstance is one of an instance that is gone.
	ConditionNoInstance
	// ConditionSeenOtherwise is one of an instance that was no longer as it had been seen.
	ConditionSeenOtherwise
)

// SetConditions makes changes in one entry, at most ConditionsPerCommand, each for
// itself. It is for this process's own parties: what they cannot say is a bug of
// theirs, told by an error, and nothing is done.
func (r *Registry) SetConditions(ctx context.Context, changes []ConditionChange) ([]ConditionOutcome, Revision, error) {
	if len(changes) == 0 || len(changes) > ConditionsPerCommand {
		return nil, 0, fmt.Errorf("registry: %d changes of conditions at once: 1 to %d", len(changes), ConditionsPerCommand)
	}
	for _, c := range changes {
		if said := c.Condition; !c.Clear && !said.Source.says(said.Status) {
			return nil, 0, fmt.Errorf("registry: instance %q of service %q in namespace %q: a condition of source %s cannot say %s", c.Key.ID, c.Key.Service, c.Key.Namespace, said.Source, said.Status)
		}
	}
	applied, err := r.replicator.Propose(ctx, "", conditionsCommand(changes))
	if err != nil {
		return nil, 0, fmt.Errorf("set %d conditions: %w", len(changes), err)
	}
	results, err := decodeReplies(applied.Reply, len(changes))
	if err != nil {
		return nil, 0, err
	}
	outcomes := make([]ConditionOutcome, len(results))
	for i, result := range results {
		switch result.GetCode() {
		case recordv1.Result_CODE_NOT_FOUND:
			outcomes[i] = ConditionNoInstance
		case recordv1.Result_CODE_SEEN_OTHERWISE:
			outcomes[i] = ConditionSeenOtherwise
		}
	}
	return outcomes, applied.Revision, nil
}

func conditionsCommand(changes []ConditionChange) []byte {
	set := &recordv1.SetConditions{}
	for i := range changes {
		c := &changes[i]
		said := c.Condition
		said.Since, said.Until = 0, 0
		set.Items = append(set.Items, &recordv1.ConditionItem{
			Key: keyToRecord(c.Key), Condition: said.record(), Clear: c.Clear, LastsMs: c.For.Milliseconds(),
			Proof: c.Holder.proof(), Lease: uint64(c.Lease), Seen: recordv1.InstanceRecord_Status(c.Seen),
		})
	}
	return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_SetConditions{SetConditions: set}})
}

func overrideStatus(word string, bad *problems) Status {
	status := statusCalled(word)
	if !SourceOperator.says(status) {
		bad.add("status", fmt.Sprintf("%s is not what an operator can say: passing, warning, critical or disabled", quoted(word)))
	}
	return status
}

func normalizeSaid(reason, by string, bad *problems) (string, string) {
	return saidText(reason, "reason", reasonBytesMax, bad), saidText(by, "by", byBytesMax, bad)
}

func saidText(text, field string, most int, bad *problems) string {
	if len(text) > most || !isPrintable(text) {
		bad.add(field, fmt.Sprintf("is not allowed: printable characters, at most %d bytes", most))
	}
	return text
}

// instanceKey is the key of a reference in normal form.
func (r InstanceRef) instanceKey() InstanceKey {
	return InstanceKey{Namespace: r.Namespace, Service: r.Service, ID: r.ID}
}
