package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
	"github.com/stellmap/stellmap/storage"
)

// TestStories runs the stories in testdata: what happens to leases, placeholders
// and services as time goes by, told by commands and the events they cause.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.HasPrefix(path, "testdata/fuzz") {
			t.Skip("an input of a fuzz test")
		}
		clock := newManualClock()
		s := &story{t: t, clock: clock, member: newMember(t, clock)}
		s.member.carry()
		s.watch = s.member.machine.Watch(s.member.machine.Revision())
		datadriven.RunTest(t, path, s.command)
	})
}

type story struct {
	t      *testing.T
	clock  *manualClock
	member *member
	watch  *Watch
}

func (s *story) command(t *testing.T, d *datadriven.TestData) string {
	var out strings.Builder
	switch d.Cmd {
	case "register":
		s.register(d, &out)
	case "deregister":
		for _, k := range held(d) {
			result, err := s.member.registry.Deregister(context.Background(), "", k)
			outcome(&out, result, err)
		}
	case "heartbeat":
		s.heartbeat(d, &out)
	case "grant", "renew-lease", "revoke":
		s.sharedLease(d, &out)
	case "override", "clear", "drain", "undrain", "check", "report":
		s.say(d, &out)
	case "accuse", "absolve":
		s.accuse(d, &out)
	case "reports":
		s.showReports(d, &out)
	case "import", "region":
		s.another(d, &out)
	case "role", "binding", "unrole", "unbind", "token", "revoke-token", "access":
		s.access(d, &out)
	case "policy", "upstreams", "namespace", "withdraw":
		s.edit(d, &out)
	case "tick":
		s.tick(d, &out)
	case "pause": // the process is stopped: time goes by and nothing runs
		s.clock.advance(duration(t, d.CmdArgs[0].Key))
	case "hold": // from now on the fate of proposed expiries and checkpoints is unknown
		s.member.holding = true
	case "deliver": // now they are committed
		s.deliver(&out)
	case "cut": // nobody confirms this leader any more
		s.member.cut = true
	case "heal":
		s.member.cut = false
	case "depose": // a successor leads; this member does not know yet
		s.member.deposed = true
	case "follow":
		s.member.machine.Follow()
	case "lead":
		s.member.lead()
	case "ahead": // the clock of an earlier leader was ahead by so much: the entries' time waits until ours is there
		s.member.latest = s.clock.Now().Add(duration(t, d.CmdArgs[0].Key)).UnixMilli()
	case "judge": // what was held back
		s.judge()
	case "protections":
		s.showProtections(&out)
	case "show":
		s.show(d, &out)
	case "tell": // the leader tells who was heard of
		s.tell(&out)
	case "list":
		s.list(d, &out)
	case "reopen":
		s.reopen(&out)
	case "replay":
		s.replay(&out)
	case "keep": // so many events, from now on
		d.ScanArgs(t, "events", &s.member.machine.working.history.bounds.Events)
	case "resume": // a watcher that has seen a revision comes to a member that was started anew
		s.resume(d, &out)
	default:
		t.Fatalf("unknown command %s", d.Cmd)
	}
	s.events(&out)
	return out.String()
}

// keys are the arguments that name instances.
func keys(d *datadriven.TestData) []InstanceRef {
	var out []InstanceRef
	for _, arg := range d.CmdArgs {
		if parts := strings.SplitN(arg.Key, "/", 3); len(parts) == 3 {
			out = append(out, ref(parts[0], parts[1], parts[2]))
		}
	}
	return out
}

// held are keys, with the caller as the arguments have him: token=none is one who
// presents none, and without token= nobody is asked.
func held(d *datadriven.TestData) []InstanceRef {
	var token string
	for _, arg := range d.CmdArgs {
		if arg.Key == "token" {
			token = arg.Vals[0]
		}
	}
	all := keys(d)
	for i := range all {
		switch token {
		case "":
		case "none":
			all[i].Holder = Holder{Asked: true}
		default:
			all[i].Holder = Holder{Asked: true, Token: "the-lease-token-of-" + token}
		}
	}
	return all
}

// sharedLease has the id of a lease first, and who calls as in held.
func (s *story) sharedLease(d *datadriven.TestData, out *strings.Builder) {
	id, token, ttl, log := d.CmdArgs[0].Key, "", 0, len(s.member.log)
	d.MaybeScanArgs(s.t, "token", &token)
	d.MaybeScanArgs(s.t, "ttl", &ttl)
	by := Holder{Asked: true}
	if token != "" {
		by.Token = "the-lease-token-of-" + token
	}
	var err error
	switch ctx, r := context.Background(), s.member.registry; d.Cmd {
	case "grant":
		_, _, err = r.GrantLease(ctx, "", LeaseGrant{ID: id, TTLSeconds: int64(ttl), Token: by.Token})
	case "revoke":
		_, err = r.RevokeLease(ctx, "", id, by)
	default:
		_, err = r.RenewLease(ctx, id, by)
	}
	switch {
	case err != nil:
		fmt.Fprintf(out, "%v\n", err)
	case len(s.member.log) > log:
		out.WriteString("ok, through the log\n")
	default:
		out.WriteString("ok\n")
	}
}

func (s *story) register(d *datadriven.TestData, out *strings.Builder) {
	host, version, zone := "10.0.0.1", "", ""
	port, ttl, count := 80, 0, 1
	d.MaybeScanArgs(s.t, "host", &host)
	d.MaybeScanArgs(s.t, "port", &port)
	d.MaybeScanArgs(s.t, "ttl", &ttl)
	d.MaybeScanArgs(s.t, "version", &version)
	d.MaybeScanArgs(s.t, "zone", &zone)
	d.MaybeScanArgs(s.t, "count", &count)
	check, initial, lease := "", "", ""
	d.MaybeScanArgs(s.t, "lease", &lease)
	d.MaybeScanArgs(s.t, "check", &check)
	d.MaybeScanArgs(s.t, "initial", &initial)
	for _, k := range held(d) {
		for n := range count {
			r := reg(k.Namespace, k.Service, k.ID, host, int32(port+n))
			r.Holder, r.LeaseToken, r.LeaseID = k.Holder, k.Holder.Token, lease
			if count > 1 {
				r.ID += strconv.Itoa(n)
			}
			if check != "" {
				r.Checks = []Check{{Name: check, Kind: CheckTCP, Initial: initial}}
			}
			r.Version, r.Zone, r.LeaseTTLSeconds = version, zone, int64(ttl)
			result, err := s.member.registry.Register(context.Background(), "", r)
			outcome(out, result, err)
		}
	}
}

// say has an operator, a check or reporters say something of instances.
func (s *story) say(d *datadriven.TestData, out *strings.Builder) {
	status, name, reason, seconds := "", "web", "", 0
	d.MaybeScanArgs(s.t, "status", &status)
	d.MaybeScanArgs(s.t, "name", &name)
	d.MaybeScanArgs(s.t, "reason", &reason)
	d.MaybeScanArgs(s.t, "seconds", &seconds)
	ctx, r := context.Background(), s.member.registry
	for _, k := range held(d) {
		var result Result
		var err error
		switch d.Cmd {
		case "override":
			result, err = r.Override(ctx, "", k, Override{Status: status, Reason: reason, By: "ann"})
		case "clear":
			result, err = r.ClearOverride(ctx, "", k)
		case "drain":
			result, err = r.Drain(ctx, "", k, Drain{Seconds: int64(seconds), Reason: reason, By: "ann"})
		case "undrain":
			result, err = r.Undrain(ctx, "", k)
		default:
			s.sayCommitted(d.Cmd, k.instanceKey(), Condition{Name: name, Reason: reason, Status: statusCalled(status)}, time.Duration(seconds)*time.Second, out)
			continue
		}
		outcome(out, result, err)
	}
}

// accuse has callers report instances, and absolve has them take it back; by= are their
// names and addresses, as name@address. Verdicts are committed unless hold-verdicts is there.
func (s *story) accuse(d *datadriven.TestData, out *strings.Builder) {
	reason, by := "", ""
	d.MaybeScanArgs(s.t, "reason", &reason)
	d.ScanArgs(s.t, "by", &by)
	ctx, r := context.Background(), s.member.registry
	for _, k := range keys(d) {
		for _, one := range strings.Split(by, ",") {
			name, from, _ := strings.Cut(one, "@")
			report := Report{Reporter: name, Outcome: ReportFailure, Reason: reason, From: netip.MustParseAddr(from)}
			if d.Cmd == "absolve" {
				report.Outcome = ReportSuccess
			}
			told, err := r.Report(ctx, k, report)
			if err != nil {
				fmt.Fprintf(out, "%v\n", err)
				continue
			}
			fmt.Fprintf(out, "%s: %d of %d\n", k.ID, told.Reporters, told.Rules.Quorum)
		}
	}
	if !d.HasArg("hold-verdicts") {
		s.judge()
	}
}

func (s *story) judge() {
	for s.member.registry.judge(context.Background()) {
	}
}

// showReports shows what the leader remembers of a service.
func (s *story) showReports(d *datadriven.TestData, out *strings.Builder) {
	namespace, name, _ := strings.Cut(d.CmdArgs[0].Key, "/")
	all, _, _, err := s.member.registry.Reports(context.Background(), ServiceKey{namespace, name})
	if err != nil {
		fmt.Fprintf(out, "%v\n", err)
	}
	for _, i := range all {
		fmt.Fprintf(out, "%s %d %q\n", i.ID, i.Reporters, i.Reason)
		for _, by := range i.By {
			fmt.Fprintf(out, "  %q from %s, %d times, last %s ago\n", by.Reporter, by.From, by.Times, s.clock.Now().Sub(time.UnixMilli(by.Last)))
		}
	}
}

// edit writes the policy of a service, what it calls, or the document of a namespace, in
// JSON, or takes it back; if= is the version that it is for.
func (s *story) edit(d *datadriven.TestData, out *strings.Builder) {
	ctx, r := context.Background(), s.member.registry
	namespace, service, isService := strings.Cut(d.CmdArgs[0].Key, "/")
	w, k := Writing{By: "ann"}, ServiceKey{Namespace: namespace, Service: service}
	if version := uint64(0); d.HasArg("if") {
		d.ScanArgs(s.t, "if", &version)
		w.If.Version = &version
	}
	var policy Policy
	var upstreams Upstreams
	var document Namespace
	var result Edited
	var err error
	switch {
	case d.Cmd == "withdraw" && d.HasArg("upstreams"):
		result, err = r.DeleteUpstreams(ctx, "", k, w)
	case d.Cmd == "upstreams":
		decodeStory(s.t, d, &upstreams)
		result, err = r.PutUpstreams(ctx, "", k, upstreams, w)
	case d.Cmd == "withdraw" && isService:
		result, err = r.DeletePolicy(ctx, "", k, w)
	case d.Cmd == "withdraw":
		result, err = r.DeleteNamespace(ctx, "", namespace, w)
	case isService:
		decodeStory(s.t, d, &policy)
		result, err = r.PutPolicy(ctx, "", k, policy, w)
	default:
		decodeStory(s.t, d, &document)
		result, err = r.PutNamespace(ctx, "", namespace, document, w)
	}
	outcome(out, result.Result, err)
	for _, c := range result.Changes {
		fmt.Fprintf(out, "version %d: %s %s -> %s\n", result.Version, c.Field, c.Before, c.After)
	}
}

func decodeStory(t *testing.T, d *datadriven.TestData, into any) {
	decoder := json.NewDecoder(strings.NewReader(d.Input))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%s: %v", d.Pos, err)
	}
}

// sayCommitted is a word of one of the cluster's own parties; passing takes it back.
func (s *story) sayCommitted(party string, k InstanceKey, c Condition, lasts time.Duration, out *strings.Builder) {
	c.Source = SourceCheck
	if party == "report" {
		c.Source, c.Name = SourceReports, ""
	}
	outcomes, _, err := s.member.registry.SetConditions(context.Background(), []ConditionChange{{Key: k, Condition: c, For: lasts, Clear: c.Status == StatusPassing}})
	if err != nil || outcomes[0] != ConditionDone {
		fmt.Fprintf(out, "outcome %v, %v\n", outcomes, err)
	}
}

func (s *story) heartbeat(d *datadriven.TestData, out *strings.Builder) {
	ttl := 0
	d.MaybeScanArgs(s.t, "ttl", &ttl)
	before := len(s.member.log)
	for _, k := range held(d) {
		_, err := s.member.registry.Heartbeat(context.Background(), k, int64(ttl))
		switch {
		case errors.Is(err, ErrNotFound):
			out.WriteString("not found\n")
		case errors.Is(err, ErrNoLeader):
			out.WriteString("no leader\n")
		case err != nil:
			fmt.Fprintf(out, "%v\n", err)
		case len(s.member.log) > before:
			out.WriteString("ok, through the log\n")
		default:
			out.WriteString("ok\n")
		}
	}
}

// tick lets time go by; renew= names instances that send heartbeats meanwhile, once a second.
func (s *story) tick(d *datadriven.TestData, out *strings.Builder) {
	total := duration(s.t, d.CmdArgs[0].Key)
	alive := keys(d)
	for passed := time.Duration(0); passed < total; passed += time.Second {
		for _, k := range alive {
			if _, err := s.member.registry.Heartbeat(context.Background(), k, 0); err != nil {
				fmt.Fprintf(out, "heartbeat %s: %v\n", k.ID, err)
			}
		}
		s.member.pass(s.clock, min(time.Second, total-passed))
	}
}

func duration(t *testing.T, text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// tell has the leader tell, and says what.
func (s *story) tell(out *strings.Builder) {
	before := len(s.member.log)
	s.member.registry.checkpointDue(context.Background())
	for _, e := range s.member.log[before:] {
		c := decodeCommand(e).GetCheckpoint()
		fmt.Fprintf(out, "checkpoint %d, %v of the reign; heard %v, overdue %v\n", e.Index, time.Duration(c.GetReignMs())*time.Millisecond, s.numbered(c.GetHeard()), s.numbered(c.GetOverdue()))
	}
}

// numbered are the ids of the instances that have the numbers.
func (s *story) numbered(set []*recordv1.LeaseNumbers) []string {
	var out []string
	for n := range numbersOf(set) {
		for _, svc := range s.member.machine.published.order {
			for _, i := range svc.instances {
				if i.Number == n {
					out = append(out, i.ID)
				}
			}
		}
	}
	return out
}

func (s *story) deliver(out *strings.Builder) {
	s.member.mu.Lock()
	defer s.member.mu.Unlock()
	for _, command := range s.member.held {
		what := "expiry"
		if decodeCommand(Entry{Data: command}).GetCheckpoint() != nil {
			what = "checkpoint"
		}
		fmt.Fprintf(out, "%s committed as %d\n", what, s.member.commit(command).Revision)
	}
	s.member.held, s.member.holding = nil, false
}

func outcome(out *strings.Builder, r Result, err error) {
	switch {
	case err != nil:
		fmt.Fprintf(out, "%v\n", err)
	case !r.Changed:
		fmt.Fprintf(out, "revision %d: nothing changed\n", r.Revision)
	}
}

// events tells what a watcher is told.
func (s *story) events(out *strings.Builder) {
	if err := tellAll(s.watch, out); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) resume(d *datadriven.TestData, out *strings.Builder) {
	after, err := strconv.ParseUint(d.CmdArgs[0].Key, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := tellAll(mustOpen(s.t, s.member.engine).Watch(Revision(after)), out); err != nil {
		fmt.Fprintf(out, "%v\n", err)
	}
}

// tellAll writes all that a watcher is told without waiting.
func tellAll(watch *Watch, out *strings.Builder) error {
	for {
		batch, more, err := watch.Poll()
		if err != nil || !more {
			return err
		}
		for _, e := range batch.Events {
			fmt.Fprintf(out, "%d %s %s", e.Revision, e.Kind, e.Service.Service)
			if i := e.Instance; i != nil {
				fmt.Fprintf(out, "/%s %s", i.ID, i.Status)
			} else if e.Previous != nil {
				fmt.Fprintf(out, "/%s", e.Previous.ID)
			}
			if e.HandedOut != e.WasHandedOut {
				fmt.Fprintf(out, " handed out: %v", e.HandedOut)
			}
			out.WriteString("\n")
		}
	}
}

func (s *story) show(d *datadriven.TestData, out *strings.Builder) {
	namespace, name, _ := strings.Cut(d.CmdArgs[0].Key, "/")
	k := ServiceKey{Namespace: namespace, Service: name}
	if shared, members, _ := s.member.machine.lease(namespace); name == "" {
		if shared == nil {
			out.WriteString("no such lease\n")
			return
		}
		fmt.Fprintf(out, "generation=%d ttl=%s ended=%v %d instances\n", shared.Generation, shared.TTL, shared.EndedAt != 0, len(members))
		return
	}
	svc := s.member.machine.Service(k)
	if svc == nil {
		out.WriteString("unknown\n")
		return
	}
	fmt.Fprintf(out, "created=%d revision=%d baseline=%d\n", svc.Created, svc.Revision, s.member.machine.published.services[k].record.baseline)
	if p := svc.Protected; p != nil {
		fmt.Fprintf(out, "protected for %s: %d healthy of %d\n", s.clock.Now().Sub(time.UnixMilli(p.Since)), p.Healthy, p.Total)
	}
	s.showProtections(out)
	for _, i := range svc.Instances {
		in := "hidden"
		for _, o := range svc.Shown {
			if o == i {
				in = "shown"
			}
		}
		fmt.Fprintf(out, "%s %s %s lease=%d ttl=%s", i.ID, i.Status, in, i.Lease, i.LeaseTTL)
		s.showTold(i, out)
		out.WriteString("\n")
		for _, c := range i.Conditions() {
			fmt.Fprintf(out, "  %s %s %s %q %s for %s\n", c.Source, c.Name, c.Status, c.Reason, c.By, s.clock.Now().Sub(time.UnixMilli(c.Since)))
		}
	}
}

// showTold shows what checkpoints have told of an instance, if anything.
func (s *story) showTold(i *Instance, out *strings.Builder) {
	told := s.member.machine.published.told
	one := told.of(i)
	if one.heard == 0 {
		return
	}
	fmt.Fprintf(out, " silent=%s", told.silent(one))
	if one.overdue() {
		out.WriteString(" overdue")
	}
	if at := s.member.machine.LastHeartbeats([]*Instance{i})[0]; at != i.LastHeartbeat {
		fmt.Fprintf(out, " heard=+%s", time.Duration(at-i.LastHeartbeat)*time.Millisecond)
	}
}

// list is what callers get of a service, by the words of status=.
func (s *story) list(d *datadriven.TestData, out *strings.Builder) {
	namespace, name, _ := strings.Cut(d.CmdArgs[0].Key, "/")
	q := Query{Namespace: namespace, Services: []string{name}}
	if words := ""; d.HasArg("status") {
		d.ScanArgs(s.t, "status", &words)
		q.Statuses = strings.Split(words, "+")
	}
	found, _, err := s.member.registry.List(context.Background(), q)
	if err != nil {
		fmt.Fprintf(out, "%v\n", err)
	}
	for _, i := range found {
		protected := ""
		if i.Protected {
			protected = " handed out"
		}
		fmt.Fprintf(out, "%s %s%s\n", i.ID, i.Status, protected)
	}
}

// showProtections shows all that there are, and what each stands at.
func (s *story) showProtections(out *strings.Builder) {
	protections, _, err := s.member.registry.Protections(context.Background(), Stale(0))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range protections {
		fmt.Fprintf(out, "%s: %s, for %s of at most %s; %d of %d are suspect, it ends at %d\n", p.Scope, p.Reason(),
			s.clock.Now().Sub(time.UnixMilli(p.Since)), p.Limit, p.Suspects, p.LeasesNow, p.EndsAt())
	}
}

// reopen reads the state back from the engine, as after a restart.
func (s *story) reopen(out *strings.Builder) {
	before := s.member.dump()
	again, err := OpenMachine(MachineConfig{Engine: s.member.engine, Region: "here"})
	if err != nil {
		s.t.Fatal(err)
	}
	if after := dumpState(again.published) + dumpEngine(s.t, s.member.engine); after != before {
		s.t.Fatalf("the state read back differs:\n%s\nfrom what it was:\n%s", after, before)
	}
	if dumpState(again.working) != dumpState(again.published) {
		s.t.Fatal("the working and the published state differ after reading back")
	}
	fmt.Fprintf(out, "equal at revision %d\n", again.Revision())
}

// replay applies the same log to an empty member, publishing in other places.
func (s *story) replay(out *strings.Builder) {
	engine, err := storage.OpenEngine(storage.EngineOptions{FS: vfs.NewMem(), Dir: "state"})
	if err != nil {
		s.t.Fatal(err)
	}
	machine, err := OpenMachine(MachineConfig{Engine: engine, Region: "here"})
	if err != nil {
		s.t.Fatal(err)
	}
	for n, e := range s.member.log {
		applyEntry(s.t, engine, machine, e)
		if n%3 == 0 || n == len(s.member.log)-1 {
			machine.Publish(e.Index)
		}
	}
	if got, want := dumpState(machine.published)+dumpEngine(s.t, engine), s.member.dump(); got != want {
		s.t.Fatalf("the replayed state differs:\n%s\nfrom the first:\n%s", got, want)
	}
	if err := engine.Close(); err != nil {
		s.t.Fatal(err)
	}
	fmt.Fprintf(out, "equal after %d entries\n", len(s.member.log))
}
