package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// How a copy of another region follows it.
//
// What the source tells is committed together with how far it has told, and each
// command names where it follows: so two leaders that take each other's place cannot
// interleave, and what is lost or comes twice does nothing. All there is is told with
// marks: a full sync has a number, what it tells has that number, and when all of it
// has been told, what has an older one is gone. Until then what was there stays, so
// that a sync that breaks off has taken nothing away.
//
// A source may have lost its data, or be asked before it has them. So a sweep that
// would remove much is held: the copy follows on, and what was not told is kept until
// an operator confirms it or the source was heard for HeldSweepMax without telling it.
// What is not told since something else is selected now, here or at the source, is no loss:
// somebody has decided it, and it goes at once, unless nothing would be left.

// The bounds of an import.
const (
	// ImportItemsMax is how many items one command may have.
	ImportItemsMax = 256
	sweepMax       = 1_024 // instances of a copy that one command removes, or makes stale
	sweepLeast     = 5     // a sweep is held if it would remove so many or all,
	sweepPercent   = 30    // and more than so many in a hundred
)

// An ImportStep is what a command of an import does.
type ImportStep uint8

// The steps.
const (
	ImportStepChanges ImportStep = iota + 1 // what has changed since
	ImportStepBegin                         // from now on all there is is told
	ImportStepPart                          // some of it
	ImportStepSweep                         // all of it was told: what was not is gone
)

// An Import is what a source has told.
type Import struct {
	Region      RegionKey
	Step        ImportStep
	After, Upto ImportCursor
	Items       []ImportItem  // of changes and parts, in order
	Age         time.Duration // of what is told: everything was told that the source had committed so long ago
	KnownAge    bool          // the source has confirmed that
	Wanted      Selection     // whatever else is told is taken for gone
}

// An ImportItem is an instance that was told.
type ImportItem struct {
	Key       InstanceKey // as the source has it
	Revision  Revision    // of the source
	Record    *recordv1.InstanceRecord
	Gone      bool // the record is not looked at
	HandedOut bool // by the source, though it is not routable
}

// An ImportResult is what became of an import.
type ImportResult struct {
	Refused []error // of instances that this registry could not have: they were not told, as far as it goes
	More    bool    // a sweep has to be asked for again, from where the copy is now
}

// ErrUnreadable says that a source tells what this version cannot read: nothing was done.
// So a source that runs a newer version freezes its copy, and takes nothing away.
var ErrUnreadable = errors.New("registry: another region tells what this version cannot read")

// Import commits what a source has told.
func (r *Registry) Import(ctx context.Context, in Import) (ImportResult, error) {
	if in.Region.Region == r.machine.reader.region || !isName(in.Region.Region, ".-_") || len(in.Items) > ImportItemsMax {
		return ImportResult{}, fmt.Errorf("registry: %d items of region %q cannot be taken in: another region, and at most %d", len(in.Items), in.Region.Region, ImportItemsMax)
	}
	command := &recordv1.ImportChanges{
		Region: in.Region.Region, ClusterId: in.Region.Cluster, Step: recordv1.ImportChanges_Step(in.Step),
		After: in.After.record(), Upto: in.Upto.record(), AgeMs: in.Age.Milliseconds(), KnownAge: in.KnownAge,
	}
	var out ImportResult
	check := newReader(in.Region.Region)
	for n := range in.Items {
		item, err := check.importable(&in.Items[n], &in.Wanted)
		switch {
		case errors.Is(err, ErrUnreadable):
			return ImportResult{}, err
		case err != nil:
			out.Refused = append(out.Refused, err)
		default:
			command.Items = append(command.Items, item)
		}
	}
	_, reply, err := r.propose(ctx, "", encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_ImportChanges{ImportChanges: command}}))
	if err != nil {
		return out, fmt.Errorf("take in what region %s tells: %w", quoted(in.Region.Region), err)
	}
	out.More = reply.GetMore()
	if err = regionRefused(reply); errors.Is(err, ErrRegionFull) {
		err = r.full(in.Region)
	}
	return out, err
}

// full says what of copies is full, and what to do. What a region had before counts
// until the end of a full sync, since it may be told yet; so one that has come back with
// much else than it had, and does not fit in beside that, is an operator's to decide.
func (r *Registry) full(k RegionKey) error {
	of, most := r.Region(k), r.machine.regionInstances
	switch {
	case of.syncs == 0:
		return fmt.Errorf("%w: there are %d of them, as many as may be: follow fewer, or stellmapctl federation forget one that is not followed any more", ErrRegionFull, regionsMax)
	case of.Cursor.Sync != 0:
		return fmt.Errorf("%w: of region %s there may be %d instances, and %d are here, those included that it had before and may tell yet: if it has others now, stellmapctl federation forget %s, and then resume", ErrRegionFull, quoted(k.Region), most, of.Instances, k.Region)
	}
	return fmt.Errorf("%w: of region %s there may be %d instances, and %d are here: when it has fewer again, stellmapctl federation resync %s", ErrRegionFull, quoted(k.Region), most, of.Instances, k.Region)
}

// importable is an item as it is committed: nothing that could not have been
// registered here, and nothing that is the source's own business. What it had before
// stays when it cannot be taken in: the next full sync does not mark it, and whether it
// goes then is the sweep's to say, which holds what is much.
func (d *reader) importable(item *ImportItem, wanted *Selection) (*recordv1.ImportItem, error) {
	out := &recordv1.ImportItem{Key: keyToRecord(item.Key), Revision: uint64(item.Revision)}
	if item.Gone {
		return out, nil
	}
	i, err := d.recorded(item.Key, item.Record)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if !wanted.covers(i) {
		return out, nil
	}
	normal, err := registrationOf(i).normalize()
	if err == nil && normal.instanceKey() != item.Key {
		err = fmt.Errorf("its names have spaces around them")
	}
	if err != nil {
		return nil, fmt.Errorf("instance %s of service %s in namespace %s: %w", quoted(item.Key.ID), quoted(item.Key.Service), quoted(item.Key.Namespace), err)
	}
	i.Token, i.Number, i.LeaseID, i.Imported = TokenHash{}, 0, "", nil
	i.Health = healthOf(i.Checks(), i.since(), i.without(func(c Condition) bool { return c.Source == SourceRegion })) // which is ours to say
	out.Put, out.HandedOut = i.record(), item.HandedOut
	out.Put.Spec = specOf(normal)
	return out, nil
}

// registrationOf is what an instance could have been registered with.
func registrationOf(i *Instance) Registration {
	return Registration{
		Namespace: i.Namespace, Service: i.Service, ID: i.ID, Group: i.Group, Zone: i.Zone, Version: i.Version,
		Labels: i.Labels.Map(), Metadata: i.Metadata.Map(), Endpoints: i.Endpoints, Checks: i.Checks(),
		LeaseTTLSeconds: int64(i.LeaseTTL / time.Second),
	}
}

// importChanges applies what a source has told.
func (t *step) importChanges(c *recordv1.ImportChanges) *recordv1.Result {
	k := RegionKey{Region: t.reader.share(c.GetRegion()), Cluster: c.GetClusterId()}
	of, next := t.state.imports[k], Region{Key: k}
	if of != nil {
		next = of.region
	}
	step, upto := ImportStep(c.GetStep()), cursorOfRecord(c.GetUpto())
	switch {
	case (next.Paused || of.empties()) && !mutant("import_while_paused"):
		return &recordv1.Result{Code: recordv1.Result_CODE_REGION_PAUSED}
	case next.Cursor != cursorOfRecord(c.GetAfter()), !next.leadsTo(step, upto):
		return &recordv1.Result{Code: recordv1.Result_CODE_CURSOR_DIFFERS}
	case of == nil && !t.hasRoomForRegion(), of != nil && of.instances+t.grownBy(k, c.GetItems()) > t.regionInstances:
		return &recordv1.Result{Code: recordv1.Result_CODE_REGION_FULL}
	}
	more := false
	switch step {
	case ImportStepBegin:
		next.syncs, next.Cursor, next.Forgotten = upto.Sync, upto, 0
	case ImportStepSweep:
		more = t.sweep(&next, upto)
	case ImportStepChanges, ImportStepPart:
		for _, item := range c.GetItems() {
			t.importItem(&next, item)
		}
		next.Cursor = upto
	default:
		panic(fmt.Sprintf("registry: entry %d of term %d has a step of an import that this version does not know: run a newer version", t.entry.Index, t.entry.Term))
	}
	if c.GetKnownAge() {
		next.hears(t.entry.Time, time.Duration(c.GetAgeMs())*time.Millisecond)
	}
	t.putRegion(&next)
	return &recordv1.Result{Code: recordv1.Result_CODE_OK, Changed: true, More: more}
}

// grownBy is how many instances more there are after some items, or fewer: a full copy may
// have one for another.
func (t *step) grownBy(of RegionKey, items []*recordv1.ImportItem) (count int) {
	is := make(map[InstanceKey]bool, len(items)) // there, after the items before
	for _, item := range items {
		k := keyOfRecord(item.GetKey())
		k.ID = of.instanceID(k.ID)
		was, met := is[k]
		if !met {
			was = t.state.instance(k) != nil
		}
		is[k] = item.GetPut() != nil
		switch {
		case is[k] && !was:
			count++
		case was && !is[k]:
			count--
		}
	}
	return count
}

// leadsTo says whether a step goes from where the copy is to a cursor. So changes of
// one incarnation of a cluster are never put on those of another.
func (r *Region) leadsTo(step ImportStep, upto ImportCursor) bool {
	at := r.Cursor
	same := upto.Incarnation == at.Incarnation && upto.Selections == at.Selections && at.Incarnation != ""
	switch step {
	case ImportStepChanges:
		return same && at.Sync == 0 && upto.Sync == 0 && upto.Revision >= at.Revision
	case ImportStepBegin:
		return upto == ImportCursor{Incarnation: upto.Incarnation, Selections: upto.Selections, Sync: r.syncs + 1} && upto.Incarnation != ""
	case ImportStepPart:
		at.Parts++
		return at.Sync != 0 && upto == at
	case ImportStepSweep:
		return at.Sync != 0 && upto.Sync == 0 && upto.Incarnation == at.Incarnation // only now it is told what was selected
	}
	return true // that it is not known stops the member
}

// importItem takes in an instance, or that it is gone.
func (t *step) importItem(of *Region, item *recordv1.ImportItem) {
	k := keyOfRecord(item.GetKey())
	k.ID = of.Key.instanceID(k.ID)
	old := t.state.instance(k)
	if item.GetPut() == nil {
		if old != nil {
			t.remove(old)
		}
		return
	}
	next, err := t.reader.recorded(k, item.GetPut())
	if err != nil {
		panic(fmt.Sprintf("registry: entry %d of term %d: %v", t.entry.Index, t.entry.Term, err))
	}
	t.reader.takeImported(next, &recordv1.Imported{
		Region: of.Key.Region, ClusterId: of.Key.Cluster, Revision: item.GetRevision(), SeenAtMs: t.entry.Time, Mark: of.syncs, HandedOut: item.GetHandedOut(),
	})
	next.Token, next.Number, next.LeaseID, next.Revision, next.Counter = TokenHash{}, 0, "", 0, 0
	t.knowImported(k.ServiceKey(), next.Endpoints)
	next = t.aged(next, t.state.services[k.ServiceKey()].policy.staleness(of.Stale), of)
	t.put(next, old)
}

// knowImported makes the service if need be, and notes the endpoint names that only
// another region has. Those above the bound have no name of their own in the mesh.
func (t *step) knowImported(k ServiceKey, endpoints []Endpoint) {
	d := t.draft(k)
	var names, known []ServiceEndpoint
	if d != nil {
		names, known = slices.Clone(d.record.imported), d.record.names()
	}
	before := len(names)
	for _, e := range endpoints {
		if len(names) < serviceEndpointNamesMax && !hasName(names, e.Name) {
			names = append(names, ServiceEndpoint{Name: e.Name, Protocol: e.Protocol})
		}
	}
	switch {
	case d == nil:
		t.createService(k, nil, names)
	case len(names) > before:
		d.record.imported = names
		if len(d.record.names()) > len(known) {
			d.visible, d.tell = true, true
		}
	}
}

// deselects says that a full sync tells less because something else is selected now: the
// cluster is the one that it was, which has not lost its data, and nothing is held that
// was missed for another reason.
func (r *Region) deselects(upto ImportCursor) bool {
	return r.Held.Since == 0 && (r.swept.incarnation == upto.Incarnation || mutant("deselected_by_another_cluster")) && r.swept.selections != upto.Selections
}

// sweep removes what a full sync has not told, or holds it if it is much. More says
// that there is more to remove, by a command of its own.
func (t *step) sweep(next *Region, upto ImportCursor) (more bool) {
	of := t.state.importsOf(next.Key)
	gone, all := of.unmarked(), of.instances
	much := gone >= sweepLeast && gone*100 > sweepPercent*all && !next.deselects(upto)
	if gone > 0 && (gone == all || much) && !mutant("sweep_is_never_held") { // all, though it was deselected: a mistyped setting looks like that
		if t.lacksMore(of, next.Held) { // all of it gets as long as what is held last
			next.Held.Since, next.Held.kept = t.entry.Time, -heldStepMax
		}
		next.Held.Instances, next.Held.Of = gone, all
		next.Cursor, next.swept = upto, sweptAt(upto)
		return false
	}
	if t.removeImported(next.Key, false) {
		next.Cursor.Parts++
		return true
	}
	next.Cursor, next.swept, next.Held = upto, sweptAt(upto), HeldSweep{}
	return false
}
