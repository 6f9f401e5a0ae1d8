package registry

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// another takes in what another region tells, or does what an operator wants of its copy.
//
//	import b/200 changes to=7
//	prod/orders/x status=critical port=80 revision=7
//	prod/orders/y gone
//
// The cursor that it follows is the copy's own, but for after= and what was its incarnation.
func (s *story) another(d *datadriven.TestData, out *strings.Builder) {
	k := regionKeyOf(s.t, d.CmdArgs[0].Key)
	if d.Cmd == "region" {
		s.region(k, d, out)
		return
	}
	at := s.member.registry.Region(k)
	in := Import{Region: k, After: at.Cursor, Upto: at.Cursor, KnownAge: true}
	in.Step = map[string]ImportStep{"changes": ImportStepChanges, "begin": ImportStepBegin, "part": ImportStepPart, "sweep": ImportStepSweep}[d.CmdArgs[1].Key]
	d.MaybeScanArgs(s.t, "after", (*uint64)(&in.After.Revision))
	switch in.Step {
	case ImportStepBegin:
		in.Upto = ImportCursor{Incarnation: "cafe", Selections: "all", Sync: at.syncs + 1}
	case ImportStepPart:
		in.Upto.Parts++
	case ImportStepSweep:
		in.Upto.Sync, in.Upto.Parts = 0, 0
	}
	d.MaybeScanArgs(s.t, "incarnation", &in.Upto.Incarnation)
	if d.HasArg("selections") {
		d.ScanArgs(s.t, "selections", &in.Upto.Selections)
	}
	if d.HasArg("wanted") {
		in.Wanted = wantedOf(s.t, d)
	}
	d.MaybeScanArgs(s.t, "to", (*uint64)(&in.Upto.Revision))
	for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
		if line != "" {
			in.Items = append(in.Items, importItemOf(s.t, line))
		}
	}
	result, err := s.member.registry.Import(context.Background(), in)
	for _, refused := range result.Refused {
		fmt.Fprintf(out, "refused: %v\n", refused)
	}
	if err != nil {
		fmt.Fprintf(out, "%v\n", err)
	}
}

// wantedOf is what is taken of a region, by its names alone.
func wantedOf(t *testing.T, d *datadriven.TestData) Selection {
	var text string
	d.ScanArgs(t, "wanted", &text)
	one, err := ParseSelected(text)
	if err != nil {
		t.Fatal(err)
	}
	out, err := Select([]Selected{one})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func regionKeyOf(t *testing.T, text string) RegionKey {
	region, cluster, _ := strings.Cut(text, "/")
	id, err := strconv.ParseUint(cluster, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return RegionKey{Region: region, Cluster: id}
}

// importItemOf reads a line of an import.
func importItemOf(t testing.TB, line string) ImportItem {
	words := strings.Fields(line)
	parts := strings.SplitN(words[0], "/", 3)
	item := ImportItem{Key: InstanceKey{Namespace: parts[0], Service: parts[1], ID: parts[2]}}
	endpoint, status := Endpoint{Name: "http", Protocol: "http", Host: "10.1.0.1", Port: 80, Weight: 100}, StatusPassing
	format := uint32(formatMax)
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		n, _ := strconv.Atoi(value) // 0 for what is no number
		switch name {
		case "gone":
			item.Gone = true
		case "port":
			endpoint.Port = int32(n)
		case "endpoint":
			endpoint.Name, endpoint.Protocol = value, value
		case "revision":
			item.Revision = Revision(n)
		case "status":
			status = statusCalled(value)
		case "format":
			format = uint32(n)
		case "handed-out":
			item.HandedOut = true
		default:
			t.Fatalf("%q is nothing of an item", word)
		}
	}
	item.Record = toldRecord(item.Key, endpoint, status)
	item.Record.Format = format
	return item
}

// toldRecord is an instance as its region tells it.
func toldRecord(k InstanceKey, e Endpoint, status Status) *recordv1.InstanceRecord {
	i := newReader("b").instance(k, &recordv1.InstanceSpec{Endpoints: endpointsToRecord([]Endpoint{e}), LeaseTtlMs: 30_000})
	i.RegisteredAt, i.LastHeartbeat, i.Status, i.Number, i.Token = 1, 1, status, 7, hashOf(token1)
	if status == StatusExpired {
		i.ExpiredAt = 2
	}
	return i.record()
}

// region shows the copy of one, or does something to it.
func (s *story) region(k RegionKey, d *datadriven.TestData, out *strings.Builder) {
	if len(d.CmdArgs) > 1 && d.CmdArgs[1].Key == "stale" {
		if err := s.member.registry.AgeRegion(context.Background(), k); err != nil {
			fmt.Fprintf(out, "%v\n", err)
		}
		return
	}
	if len(d.CmdArgs) > 1 && d.CmdArgs[1].Key == "age" {
		if err := s.member.registry.LetGo(context.Background(), k); err != nil {
			fmt.Fprintf(out, "%v\n", err)
		}
		return
	}
	if len(d.CmdArgs) > 1 && d.CmdArgs[1].Key == "heard" {
		s.heard(k, d)
		return
	}
	if len(d.CmdArgs) > 1 {
		result, err := s.member.registry.ControlRegion(context.Background(), k, RegionAction(d.CmdArgs[1].Key))
		outcome(out, result, err)
		return
	}
	of := s.member.registry.Region(k)
	fmt.Fprintf(out, "%d instances of %d services, told up to %d of %q", of.Instances, of.Services, of.Cursor.Revision, of.Cursor.Incarnation)
	if of.Cursor.Sync != 0 {
		fmt.Fprintf(out, ", full sync %d has %d parts", of.Cursor.Sync, of.Cursor.Parts)
	}
	if of.Paused {
		out.WriteString(", paused")
	}
	if of.Leaving != 0 {
		fmt.Fprintf(out, ", %d of them leaving", of.Leaving)
	}
	if of.Held.Since != 0 {
		fmt.Fprintf(out, ", %d of %d held for %s", of.Held.Instances, of.Held.Of, s.clock.Now().Sub(time.UnixMilli(of.Held.Since)))
	}
	if age, known := s.member.registry.RegionAge(of); known {
		fmt.Fprintf(out, ", %s old", age)
	}
	if of.Stale != 0 {
		fmt.Fprintf(out, ", %s at least, for which %d are suspect and %d withheld", of.Stale, of.Suspect, of.Withheld)
	}
	out.WriteString("\n")
}

// heard has a region confirm every ten seconds, for as long as is said, that nothing has changed.
func (s *story) heard(k RegionKey, d *datadriven.TestData) {
	const every = 10 * time.Second
	var total string
	d.ScanArgs(s.t, "for", &total)
	for left := duration(s.t, total); left > 0; left -= every {
		s.clock.advance(every)
		at := s.member.registry.Region(k).Cursor
		if _, err := s.member.registry.Import(context.Background(), Import{Region: k, Step: ImportStepChanges, After: at, Upto: at, KnownAge: true}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// imported is a command of an import or of an operator, mostly where the copy is.
func (a *author) imported() []byte {
	of := &a.copied
	if a.random.IntN(12) == 0 {
		action := []RegionAction{RegionPause, RegionResume, RegionResync, RegionConfirm, RegionForget, regionAge, regionEmpty}[a.random.IntN(7)]
		switch action {
		case RegionResync:
			of.Cursor = ImportCursor{Sync: of.Cursor.Sync}
		case RegionForget:
			of.Cursor = ImportCursor{}
		}
		return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_ControlRegion{ControlRegion: &recordv1.ControlRegion{Region: "b", ClusterId: 200, Action: regionActions[action]}}})
	}
	if a.random.IntN(4) == 0 {
		aged := &recordv1.AgeRegion{Region: "b", ClusterId: 200, ToldMs: of.Told, StaleMs: []int64{0, 60_000, 120_000}[a.random.IntN(3)]}
		return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_AgeRegion{AgeRegion: aged}})
	}
	in := &recordv1.ImportChanges{Region: "b", ClusterId: 200, After: of.Cursor.record(), AgeMs: int64(a.random.IntN(1000)), KnownAge: true}
	next := of.Cursor
	switch {
	case next.Incarnation == "" || a.random.IntN(12) == 0:
		of.syncs++
		next = ImportCursor{Incarnation: []string{"cafe", "beef"}[a.random.IntN(2)], Selections: a.selections(), Sync: of.syncs}
		in.Step = recordv1.ImportChanges_STEP_BEGIN
	case next.Sync == 0:
		next.Revision++
		in.Step, in.Items = recordv1.ImportChanges_STEP_CHANGES, a.importItems(true)
	case a.random.IntN(3) == 0:
		next = ImportCursor{Incarnation: next.Incarnation, Selections: a.selections(), Revision: Revision(a.random.IntN(10))}
		in.Step = recordv1.ImportChanges_STEP_SWEEP
	default:
		next.Parts++
		in.Step, in.Items = recordv1.ImportChanges_STEP_PART, a.importItems(false)
	}
	in.Upto = next.record()
	if a.random.IntN(20) > 0 { // else it is lost
		of.Cursor, of.Told = next, a.clock
	}
	return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_ImportChanges{ImportChanges: in}})
}

func (a *author) selections() string { return []string{"all", "some"}[a.random.IntN(2)] }

func (a *author) importItems(goners bool) []*recordv1.ImportItem {
	var items []*recordv1.ImportItem
	for range 1 + a.random.IntN(4) {
		k := a.key()
		item := &recordv1.ImportItem{Key: keyToRecord(k), Revision: a.random.Uint64N(100), HandedOut: a.random.IntN(4) == 0}
		if !goners || a.random.IntN(3) > 0 {
			e := Endpoint{Name: []string{"http", "web"}[a.random.IntN(2)], Protocol: "http", Host: "10.1.0.1", Port: int32(1 + a.random.IntN(3)), Weight: 100}
			item.Put = toldRecord(k, e, []Status{StatusPassing, StatusCritical, StatusExpired, StatusDisabled}[a.random.IntN(4)])
		}
		items = append(items, item)
	}
	return items
}

// TestASweepIsBounded shows that what removes much does so in several commands, each of
// so many instances, and that a sync which is swept in parts is at its end with the last.
func TestASweepIsBounded(t *testing.T) {
	m := newMember(t, newManualClock())
	k := RegionKey{Region: "b", Cluster: 200}
	step := func(kind ImportStep, upto ImportCursor, items ...ImportItem) bool {
		t.Helper()
		result, err := m.registry.Import(context.Background(), Import{Region: k, Step: kind, After: m.registry.Region(k).Cursor, Upto: upto, Items: items})
		if err != nil {
			t.Fatal(err)
		}
		return result.More
	}
	at := ImportCursor{Incarnation: "cafe", Selections: "all", Sync: 1}
	step(ImportStepBegin, at)
	const most = 16
	const all, gone = 8 * most, 2*most + 1
	m.machine.sweepMost = most
	for n := 0; n < all; n += ImportItemsMax {
		at.Parts++
		step(ImportStepPart, at, numberedItems(t, n, min(ImportItemsMax, all-n))...)
	}
	step(ImportStepSweep, ImportCursor{Incarnation: "cafe", Selections: "all", Revision: 5})
	at.Sync, at.Parts = 2, 0
	step(ImportStepBegin, at)
	for n := gone; n < all; {
		count := min(ImportItemsMax, all-n)
		at.Parts++
		step(ImportStepPart, at, numberedItems(t, n, count)...)
		n += count
	}
	end := ImportCursor{Incarnation: "cafe", Selections: "all", Revision: 9}
	for left := all - most; step(ImportStepSweep, end); left -= most {
		mustEqual(t, "what is left after a part of the sweep", m.registry.Region(k).Instances, left)
	}
	mustEqual(t, "what is left after the sweep", m.registry.Region(k).Instances, all-gone)
	mustEqual(t, "where the copy is", m.registry.Region(k).Cursor, end)
	before := m.index
	if _, err := m.registry.ControlRegion(context.Background(), k, RegionForget); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "the commands that it took to forget", int(m.index-before), (all-gone)/most+1)
	mustEqual(t, "what is left of a forgotten region", m.registry.Region(k).Instances, 0)
}

func numberedItems(t *testing.T, from, count int) []ImportItem {
	items := make([]ImportItem, count)
	for n := range items {
		items[n] = importItemOf(t, fmt.Sprintf("prod/orders/%05d port=%d", from+n, 1+(from+n)%60_000))
	}
	return items
}

// TestRegionsAreBounded shows that there are so many copies, and no more, and that what was
// forgotten makes room, in its order, unless it is followed again.
func TestRegionsAreBounded(t *testing.T) {
	m := newMember(t, newManualClock())
	begin := func(n int) error {
		_, err := m.registry.Import(context.Background(), Import{
			Region: RegionKey{Region: fmt.Sprint("r", n), Cluster: 200}, Step: ImportStepBegin, Upto: ImportCursor{Incarnation: "cafe", Sync: 1},
		})
		return err
	}
	for n := range regionsMax {
		if err := begin(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := begin(regionsMax); !errors.Is(err, ErrRegionFull) || !strings.Contains(err.Error(), "there are 64 of them") {
		t.Errorf("one more is told %v", err)
	}
	mustEqual(t, "how many there are", len(m.registry.Regions()), regionsMax)

	of := func(n int) RegionKey { return RegionKey{Region: fmt.Sprint("r", n), Cluster: 200} }
	for _, n := range []int{9, 5, 7} {
		m.control(t, of(n), RegionForget)
	}
	m.control(t, of(5), RegionForget) // which makes it no younger
	m.control(t, of(9), RegionResume)
	for n, goes := range []int{5, 7} {
		if err := begin(regionsMax + n); err != nil {
			t.Fatal(err)
		}
		mustEqual(t, "what is known of the one that has made room", m.registry.Region(of(goes)), Region{Key: of(goes)})
	}
	if err := begin(regionsMax + 2); !errors.Is(err, ErrRegionFull) {
		t.Errorf("one more is told %v", err)
	}
	mustEqual(t, "how many there are then", len(m.registry.Regions()), regionsMax)
	again, err := OpenMachine(MachineConfig{Engine: m.engine, Region: "here"})
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "what is read back", dumpState(again.published), dumpState(m.machine.published))
}
