package registry

import (
	"context"
	"fmt"
	"math"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// RegionAction is what an operator wants of a copy.
type RegionAction string

// The actions.
const (
	RegionPause   RegionAction = "pause"   // nothing is taken in any more; what there is stays
	RegionResume  RegionAction = "resume"  // it goes on
	RegionResync  RegionAction = "resync"  // all there is is told anew
	RegionConfirm RegionAction = "confirm" // what a full sync did not tell may go, though it is much
	RegionForget  RegionAction = "forget"  // all that was told is removed, and the copy is paused
	regionAge     RegionAction = "age"     // goes on with confirm, or begins when it has been held for long enough
	regionEmpty   RegionAction = "empty"   // goes on with forget
)

var regionActions = map[RegionAction]recordv1.ControlRegion_Action{
	RegionPause: recordv1.ControlRegion_ACTION_PAUSE, RegionResume: recordv1.ControlRegion_ACTION_RESUME,
	RegionResync: recordv1.ControlRegion_ACTION_RESYNC, RegionConfirm: recordv1.ControlRegion_ACTION_CONFIRM,
	RegionForget: recordv1.ControlRegion_ACTION_FORGET, regionAge: recordv1.ControlRegion_ACTION_AGE, regionEmpty: recordv1.ControlRegion_ACTION_EMPTY,
}

// controlStepsMax is how many commands an operator waits for. What is more than that goes
// behind the answer, by commands of the leader.
const controlStepsMax = 8

// controlRegion applies an operator's word on a copy.
func (t *step) controlRegion(c *recordv1.ControlRegion) *recordv1.Result {
	of := t.state.imports[RegionKey{Region: c.GetRegion(), Cluster: c.GetClusterId()}]
	if of == nil {
		return &recordv1.Result{Code: recordv1.Result_CODE_NOT_FOUND}
	}
	next, more, had := of.region, false, of.instances
	switch c.GetAction() {
	case recordv1.ControlRegion_ACTION_PAUSE:
		next.Paused = true
	case recordv1.ControlRegion_ACTION_RESUME:
		next.Paused = false
	case recordv1.ControlRegion_ACTION_RESYNC:
		next.Cursor = ImportCursor{Sync: next.Cursor.Sync} // as long as a sync was not swept, what it did not tell is not marked
	case recordv1.ControlRegion_ACTION_FORGET:
		next.Paused, next.Cursor, next.Held, next.Told, next.swept = true, ImportCursor{}, HeldSweep{}, 0, swept{}
		if next.Forgotten == 0 {
			next.Forgotten = t.entry.Index
		}
		more = t.empty(&next)
	case recordv1.ControlRegion_ACTION_EMPTY:
		if next.Forgotten == 0 {
			return &recordv1.Result{Code: recordv1.Result_CODE_OK}
		}
		more = t.empty(&next)
	case recordv1.ControlRegion_ACTION_CONFIRM, recordv1.ControlRegion_ACTION_AGE:
		if next.Held.Since == 0 || c.GetAction() == recordv1.ControlRegion_ACTION_AGE && !next.aged() {
			return &recordv1.Result{Code: recordv1.Result_CODE_OK}
		}
		if next.Cursor.Sync != 0 { // what it has not told yet is not marked
			return &recordv1.Result{Code: recordv1.Result_CODE_CURSOR_DIFFERS}
		}
		next.Held.kept = max(next.Held.kept, HeldSweepMax) // so that what does not go now need not be confirmed again
		if more = t.removeImported(next.Key, false); !more {
			next.Held = HeldSweep{}
		}
	default:
		panic(fmt.Sprintf("registry: entry %d of term %d wants something of a region that this version does not know: run a newer version", t.entry.Index, t.entry.Term))
	}
	changed := next != of.region || of.instances < had
	t.putRegion(&next)
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: changed, More: more}
}

// empty removes instances of a forgotten copy, as many as one command may.
func (t *step) empty(next *Region) (more bool) {
	if more = t.removeImported(next.Key, true); !more {
		next.Stale = 0
	}
	return more
}

// hasRoomForRegion says whether there may be one copy more. One that was forgotten and is
// empty makes room, the one first that was forgotten first. It is followed again if it is
// in the settings, and has to be forgotten again: but then there were more to follow than
// there may be.
func (t *step) hasRoomForRegion() bool {
	if len(t.state.imports) < regionsMax {
		return true
	}
	var first *Region
	for _, of := range t.state.imports {
		r := &of.region
		if r.Forgotten != 0 && r.Paused && of.instances == 0 && (first == nil || r.Forgotten < first.Forgotten) {
			first = r
		}
	}
	if first != nil {
		t.removeRegion(first)
	}
	return first != nil
}

// ControlRegion does what an operator wants of a copy. Of what is much the rest goes behind
// the answer (Region.Leaving), whoever leads.
func (r *Registry) ControlRegion(ctx context.Context, k RegionKey, action RegionAction) (Result, error) {
	kind, known := regionActions[action]
	if !known {
		return Result{}, &ValidationError{Problems: []Problem{{Field: "action", Reason: fmt.Sprintf("%s is not one: pause, resume, resync, confirm or forget", quoted(string(action)))}}}
	}
	if err := Permit(ctx, Ask{Verb: VerbWrite, Resource: ResourceRegions}); err != nil {
		return Result{}, err
	}
	return r.controlRegion(ctx, k, kind, controlStepsMax)
}

// controlRegion has an action committed as often as there is more to do, up to some commands.
func (r *Registry) controlRegion(ctx context.Context, k RegionKey, action recordv1.ControlRegion_Action, most int) (Result, error) {
	command := encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_ControlRegion{ControlRegion: &recordv1.ControlRegion{
		Region: k.Region, ClusterId: k.Cluster, Action: action,
	}}})
	changed := false
	for n := 1; ; n++ {
		result, reply, err := r.propose(ctx, "", command)
		if err != nil {
			return result, fmt.Errorf("%s region %s: %w", wordOf(action), quoted(k.Region), err)
		}
		changed = changed || result.Changed
		if !reply.GetMore() || n == most {
			result.Changed = changed
			return result, regionRefused(reply)
		}
	}
}

func wordOf(action recordv1.ControlRegion_Action) RegionAction {
	for word, is := range regionActions {
		if is == action {
			return word
		}
	}
	return ""
}

// LetGo goes on with removing what was forgotten, or was not told in a full sync and has
// been held for long enough or was confirmed. Where there is nothing of that, it costs nothing.
func (r *Registry) LetGo(ctx context.Context, k RegionKey) error {
	action := recordv1.ControlRegion_ACTION_AGE
	switch of := r.Region(k); {
	case of.Forgotten != 0 && of.Instances > 0:
		action = recordv1.ControlRegion_ACTION_EMPTY
	case !of.aged():
		return nil
	}
	_, err := r.controlRegion(ctx, k, action, math.MaxInt)
	return err
}
