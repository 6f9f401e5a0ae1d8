package registry

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// What is known here of other regions.
//
// Each region is a consensus domain of its own; what this one knows of another is a
// copy, which the leader follows and commits (import.go). The copy's instances belong
// to the same services as our own, so that whoever reads finds all. Nothing else that
// is done with instances is done with them: their leases, checks, placeholders,
// protections and quotas are their own region's business, and what has come of it is
// told with their status.
//
// They cannot be mistaken for our own, whatever they are called: they have keys of
// their own in the engine, and the id of each begins with its region and cluster and
// a slash, which no id has that is registered here.

// The bounds of copies. What would go beyond them is refused.
const (
	regionsMax         = 64
	regionInstancesMax = 1_000_000
)

// A RegionKey names another region's cluster.
type RegionKey struct {
	Region  string
	Cluster uint64
}

func (k RegionKey) compare(o RegionKey) int {
	return cmp.Or(cmp.Compare(k.Region, o.Region), cmp.Compare(k.Cluster, o.Cluster))
}

// instanceID is what an instance of the region is called here.
func (k RegionKey) instanceID(id string) string {
	return fmt.Sprintf("%s/%d/%s", k.Region, k.Cluster, id)
}

// cutInstanceID takes apart what an instance of another region is called here, if it is
// written as instanceID writes it and says what can be.
func cutInstanceID(id string) (of RegionKey, there string, isAnothers bool) {
	region, rest, _ := strings.Cut(id, "/")
	cluster, there, _ := strings.Cut(rest, "/")
	number, err := strconv.ParseUint(cluster, 10, 64)
	of = RegionKey{Region: region, Cluster: number}
	return of, there, err == nil && isName(region, ".-_") && there != "" && isID(there) && of.instanceID(there) == id
}

// Imported is where an instance of another region is from, beside its region.
type Imported struct {
	Cluster  uint64
	Revision Revision // of the source
	SeenAt   int64    // Unix ms: when the source told of it last
	mark     uint64   // of the full sync, or of what came after it, that told of it

	stale     staleness // what the age of the copy has made of it
	handedOut bool      // by the source, though it is not routable
	told      Status    // where it has made something of it: what the source says; like the next
	toldSince int64     // as Health.Since
}

func (i *Instance) ofAnother() bool { return i != nil && i.Imported != nil }

// regionKey is of an instance of another region.
func (i *Instance) regionKey() RegionKey {
	return RegionKey{Region: i.Region, Cluster: i.Imported.Cluster}
}

// SourceID is what its own region calls an instance.
func (i *Instance) SourceID() string {
	if i.Imported == nil {
		return i.ID
	}
	return i.ID[len(i.regionKey().instanceID("")):]
}

// storedAt is the instance's key in the engine.
func (i *Instance) storedAt() []byte {
	if i.Imported == nil {
		return storage.InstanceKey(i.Namespace, i.Service, i.ID)
	}
	return storage.RegionInstanceKey(i.Region, i.Imported.Cluster, i.Namespace, i.Service, i.SourceID())
}

func (i *Instance) importedRecord() *recordv1.Imported {
	if i.Imported == nil {
		return nil
	}
	return &recordv1.Imported{
		Region: i.Region, ClusterId: i.Imported.Cluster, Revision: uint64(i.Imported.Revision), SeenAtMs: i.Imported.SeenAt,
		Mark: i.Imported.mark, HandedOut: i.Imported.handedOut,
		Stale: uint32(i.Imported.stale), ToldStatus: recordv1.InstanceRecord_Status(i.Imported.told), ToldSinceMs: i.Imported.toldSince,
	}
}

// takeImported gives an instance the region that a record says; nil is our own.
func (d *reader) takeImported(i *Instance, record *recordv1.Imported) {
	if record == nil {
		return
	}
	from := *i.Origin
	from.Region = d.share(record.GetRegion())
	i.Origin = d.origin(from)
	i.Imported = &Imported{
		Cluster: record.GetClusterId(), Revision: Revision(record.GetRevision()), SeenAt: record.GetSeenAtMs(), mark: record.GetMark(),
		stale: staleness(record.GetStale()), handedOut: record.GetHandedOut(), told: Status(record.GetToldStatus()), toldSince: record.GetToldSinceMs(),
	}
	i.Protected = i.Imported.handedOut && i.Imported.stale != staleWithheld
}

// own are those of some instances that are registered here.
func own(instances []*Instance) []*Instance {
	if !slices.ContainsFunc(instances, (*Instance).ofAnother) {
		return instances
	}
	return slices.DeleteFunc(slices.Clone(instances), (*Instance).ofAnother)
}

// own are the instances that this region keeps the leases of. They are not to be kept.
func (svc *serviceState) own() []*Instance {
	if svc.abroad.instances == 0 {
		return svc.instances
	}
	return own(svc.instances)
}

// names are the service's endpoint names. What was registered here comes first, and
// settles the protocol.
func (r *serviceRecord) names() []ServiceEndpoint {
	switch {
	case len(r.imported) == 0:
		return r.endpoints
	case len(r.endpoints) == 0:
		return r.imported
	}
	all := slices.Clone(r.endpoints)
	for _, e := range r.imported {
		if !hasName(all, e.Name) {
			all = append(all, e)
		}
	}
	return all
}

func hasName(names []ServiceEndpoint, name string) bool {
	return slices.ContainsFunc(names, func(e ServiceEndpoint) bool { return e.Name == name })
}

// and adds counts up.
func (c StatusCounts) and(o StatusCounts) StatusCounts {
	for s := range c {
		c[s] += o[s]
	}
	return c
}

// A Region is the copy of another region's cluster.
type Region struct {
	Key       RegionKey
	Cursor    ImportCursor
	Paused    bool
	Told      int64         // Unix ms: when the source last confirmed how far it had told, by the time of entries; 0 = never
	Age       time.Duration // then: all that the source had committed so long before was told
	Held      HeldSweep
	Forgotten Revision // at which somebody wanted that; 0 = nobody did, or it was begun anew since
	syncs     uint64   // full syncs that were begun; the mark of what the last one told
	swept     swept    // of the last full sync that was told to its end

	Stale time.Duration // so old it is at least, as far as policies ask; 0 = young enough for all of them

	Instances, Services int // in what readers get; like the next
	Suspect, Withheld   int // instances, since the copy is too old for their service's policy
	Leaving             int // instances that go by and by, since that was wanted
}

// A HeldSweep is that much of a copy was not told in the last full sync and is kept:
// what has lost its data must not take everybody's.
type HeldSweep struct {
	Since     int64 // Unix ms; 0 = nothing is held
	Instances int   // when it was found; like the next
	Of        int
	kept      time.Duration // for how long the source was heard since; it begins a step below 0
}

// swept is of which cluster, and of what of it, all there is was told.
type swept struct{ incarnation, selections string }

func sweptAt(c ImportCursor) swept { return swept{c.Incarnation, c.Selections} }

// ImportCursor is where a copy is.
type ImportCursor struct {
	Incarnation string   // of the source's cluster; "" = nothing was told yet
	Revision    Revision // of the source; 0 while all there is is told
	Selections  string   // as the source calls what it tells
	Sync        uint64   // the number of the full sync that is under way, or that was until all is to be told anew; 0 = none
	Parts       uint64   // that were taken in of it, or of what came after the revision
}

func (c ImportCursor) record() *recordv1.ImportCursor {
	return &recordv1.ImportCursor{Incarnation: c.Incarnation, Revision: uint64(c.Revision), Selections: c.Selections, Sync: c.Sync, Parts: c.Parts}
}

func cursorOfRecord(r *recordv1.ImportCursor) ImportCursor {
	return ImportCursor{Incarnation: r.GetIncarnation(), Revision: Revision(r.GetRevision()), Selections: r.GetSelections(), Sync: r.GetSync(), Parts: r.GetParts()}
}

func (r *Region) encode() []byte {
	return encode(&recordv1.RegionRecord{
		Format: formatMax, Cursor: r.Cursor.record(), Syncs: r.syncs, Paused: r.Paused,
		ToldMs: r.Told, AgeMs: r.Age.Milliseconds(),
		HeldSinceMs: r.Held.Since, Held: uint64(r.Held.Instances), HeldOf: uint64(r.Held.Of),
		Forgotten: uint64(r.Forgotten), HeldKeptMs: r.Held.kept.Milliseconds(), StaleMs: r.Stale.Milliseconds(), SweptIncarnation: r.swept.incarnation, SweptSelections: r.swept.selections,
	})
}

func decodeRegion(k RegionKey, value []byte) (*Region, error) {
	var record recordv1.RegionRecord
	if err := unmarshalRecord(fmt.Sprintf("the copy of region %q, cluster %d,", k.Region, k.Cluster), value, &record); err != nil {
		return nil, err
	}
	return &Region{
		Key: k, Cursor: cursorOfRecord(record.GetCursor()), syncs: record.GetSyncs(), Paused: record.GetPaused(),
		Told: record.GetToldMs(), Age: time.Duration(record.GetAgeMs()) * time.Millisecond,
		Held:      HeldSweep{Since: record.GetHeldSinceMs(), Instances: int(record.GetHeld()), Of: int(record.GetHeldOf()), kept: time.Duration(record.GetHeldKeptMs()) * time.Millisecond},
		Stale:     time.Duration(record.GetStaleMs()) * time.Millisecond,
		Forgotten: Revision(record.GetForgotten()),
		swept:     swept{record.GetSweptIncarnation(), record.GetSweptSelections()},
	}, nil
}

// NextSync is where a copy is when all there is begins to be told.
func (r Region) NextSync(incarnation string) ImportCursor {
	return ImportCursor{Incarnation: incarnation, Sync: r.syncs + 1}
}

// imports is the copy of a region within a state.
type imports struct {
	region    Region
	instances int
	services  map[ServiceKey]copied
	modes     copied         // of all of them
	marks     map[uint64]int // instances by their mark
	walk      walk           // only of the state that Apply works on
	aging     aging          // of those whose policy says what becomes of instances of an old copy
}

// copied are a service's instances of a region, by what the copy's age has made of them.
type copied [staleWithheld + 1]int

func (c copied) instances() int { return c[staleNot] + c[staleSuspect] + c[staleWithheld] }

func (s *state) importsOf(k RegionKey) *imports {
	of := s.imports[k]
	if of == nil {
		of = &imports{region: Region{Key: k}, services: make(map[ServiceKey]copied), marks: make(map[uint64]int), aging: make(aging)}
		s.imports[k] = of
	}
	return of
}

func (im *imports) count(svc *serviceState, i *Instance, by int) {
	im.instances += by
	of, known := im.services[svc.key]
	of[i.Imported.stale] += by
	im.modes[i.Imported.stale] += by
	if im.marks[i.Imported.mark] += by; im.marks[i.Imported.mark] == 0 {
		delete(im.marks, i.Imported.mark)
	}
	im.services[svc.key] = of
	switch {
	case of.instances() == 0:
		delete(im.services, svc.key)
		im.aging.drop(svc.key, svc.policy)
	case !known:
		im.aging.add(svc.key, svc.policy)
	}
}

// HeldSweepMax is for how long what a full sync did not tell is kept, if it is much.
const HeldSweepMax = 10 * time.Minute

// heldStepMax is how much of that one confirmation of the source counts for at most. They
// come every ten seconds, and what was between two of them is told by the clocks of
// leaders: one that is an hour ahead is not to let anything go early.
const heldStepMax = 15 * time.Second

// hears takes in that the source has confirmed how far it has told. The first time since a
// sweep was held counts from before that, for a step at most, which is why it begins below 0.
func (r *Region) hears(now int64, age time.Duration) {
	if r.Held.Since != 0 {
		passed := time.Duration(now-r.Told) * time.Millisecond
		r.Held.kept += min(max(0, passed), heldStepMax)
	}
	r.Told, r.Age = now, age
}

// aged says that a source has not told what is held for long enough, and was heard all the
// while: one that cannot be reached takes nothing away, however long.
func (r *Region) aged() bool {
	return r.Held.Since != 0 && (r.Held.kept >= HeldSweepMax || mutant("held_is_let_go_at_once"))
}

// HeldUntil is when what is held goes, if the source is heard until then; zero if nothing is held.
func (r *Region) HeldUntil() time.Time {
	if r.Held.Since == 0 {
		return time.Time{}
	}
	return time.UnixMilli(max(r.Held.Since, r.Told)).Add(max(0, HeldSweepMax-max(0, r.Held.kept)))
}

// Anew says that all there is is to be told anew, and nothing of that has come yet.
func (c ImportCursor) Anew() bool { return c.Incarnation == "" }

func (t *step) putRegion(r *Region) {
	t.batch.Set(storage.CursorKey(r.Key.Region, r.Key.Cluster), r.encode())
	t.change(change{op: opRegionPut, region: r, silent: true})
}

func (t *step) removeRegion(r *Region) {
	t.batch.Delete(storage.CursorKey(r.Key.Region, r.Key.Cluster))
	t.change(change{op: opRegionDelete, region: r, silent: true})
}

// OwnRegion is the region that this registry is of.
func (r *Registry) OwnRegion() string { return r.machine.reader.region }

// RegionOrder is in which order regions are called, where neither the client nor a policy has it otherwise.
func (r *Registry) RegionOrder() []string { return r.order }

// Regions are the copies of other regions, as this member has them.
func (r *Registry) Regions() []Region {
	m := r.machine
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]Region, 0, len(m.published.imports))
	for _, of := range m.published.imports {
		out = append(out, of.shown())
	}
	slices.SortFunc(out, func(a, b Region) int { return a.Key.compare(b.Key) })
	return out
}

// Region is one of them; the zero value of one that nothing is known of.
func (r *Registry) Region(k RegionKey) Region {
	m := r.machine
	m.mu.RLock()
	defer m.mu.RUnlock()
	if of := m.published.imports[k]; of != nil {
		return of.shown()
	}
	return Region{Key: k}
}

func (im *imports) shown() Region {
	out := im.region
	out.Instances, out.Services = im.instances, len(im.services)
	out.Suspect, out.Withheld = im.modes[staleSuspect], im.modes[staleWithheld]
	switch {
	case out.Forgotten != 0:
		out.Leaving = im.instances
	case out.aged() && out.Cursor.Sync == 0:
		out.Leaving = im.unmarked()
	}
	return out
}

// Stopped says that nothing is taken in: it is paused, or was forgotten and is not empty yet.
func (r Region) Stopped() bool { return r.Paused || r.Forgotten != 0 && r.Instances > 0 }

// RegionAge is how old a copy is now: all that its source had committed so long ago
// was told. False says that it has never been confirmed.
func (r *Registry) RegionAge(of Region) (time.Duration, bool) {
	return r.Since(time.UnixMilli(of.Told)) + of.Age, of.Told != 0
}

var (
	// ErrNoRegion says that nothing was ever told of such a region.
	ErrNoRegion = errors.New("registry: no copy of this region")
	// ErrCursorDiffers says that a copy is not where a command follows, or that a full sync is under way: nothing was done.
	ErrCursorDiffers = errors.New("registry: the copy of the region is elsewhere")
	// ErrRegionPaused says that a copy takes nothing in: nothing was done.
	ErrRegionPaused = errors.New("registry: the copy of the region is paused")
	// ErrRegionFull says that there are as many regions, or instances of one, as there may be: nothing was done.
	ErrRegionFull = errors.New("registry: the copies of other regions are full")
)

func regionRefused(reply *recordv1.Result) error {
	switch reply.GetCode() {
	case recordv1.Result_CODE_NOT_FOUND:
		return ErrNoRegion
	case recordv1.Result_CODE_CURSOR_DIFFERS:
		return ErrCursorDiffers
	case recordv1.Result_CODE_REGION_PAUSED:
		return ErrRegionPaused
	case recordv1.Result_CODE_REGION_FULL:
		return ErrRegionFull
	}
	return nil
}
