package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/stellmap/stellmap/registry"
)

// TestStories runs the stories in testdata: what members find of instances as
// time goes by, and what of it they have committed.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &story{cluster: newCluster(t)}
		s.watch = s.machine.Watch(s.machine.Revision())
		datadriven.RunTest(t, path, s.command)
	})
}

type story struct {
	*cluster
	watch *registry.Watch
}

func (s *story) command(t *testing.T, d *datadriven.TestData) string {
	var out strings.Builder
	switch d.Cmd {
	case "members": // these make checks from now on
		for _, arg := range d.CmdArgs {
			s.prober(uint64(arg.Key[0]-'0'), nil)
		}
	case "kill":
		for _, arg := range d.CmdArgs {
			delete(s.probers, uint64(arg.Key[0]-'0'))
		}
	case "register":
		s.enrol(t, d)
	case "deregister":
		ref := registry.InstanceRef{Namespace: "prod", Service: "pay", ID: d.CmdArgs[0].Key}
		if _, err := s.registry.Deregister(context.Background(), "", ref); err != nil {
			t.Fatal(err)
		}
	case "answer": // what tries of a host show from now on
		s.answer(d)
	case "log": // whether commands pass
		s.fault = nil
		if d.CmdArgs[0].Key == "broken" {
			s.fault = errors.New("the outcome is unknown")
		}
	case "tick":
		lasts, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		s.pass(lasts)
	case "tried": // since the last time
		for _, arg := range d.CmdArgs {
			fmt.Fprintf(&out, "%s %d times\n", arg.Key, s.tried[arg.Key])
		}
		clear(s.tried)
	default:
		t.Fatalf("unknown command %s", d.Cmd)
	}
	s.events(&out)
	return out.String()
}

func (s *story) enrol(t *testing.T, d *datadriven.TestData) {
	host, check := "10.0.0.1", registry.Check{Name: "web", Kind: registry.CheckTCP, TimeoutSeconds: 1, IntervalSeconds: 1, Rise: 1, Fall: 1}
	d.ScanArgs(t, "host", &host)
	interval, rise, fall := 1, 1, 1
	d.MaybeScanArgs(t, "interval", &interval)
	d.MaybeScanArgs(t, "rise", &rise)
	d.MaybeScanArgs(t, "fall", &fall)
	d.MaybeScanArgs(t, "initial", &check.Initial)
	check.IntervalSeconds, check.Rise, check.Fall = int64(interval), int32(rise), int32(fall)
	s.register(d.CmdArgs[0].Key, host, check)
}

func (s *story) answer(d *datadriven.TestData) {
	o := passes
	if len(d.CmdArgs) > 1 {
		o.Reason = d.CmdArgs[1].Key
		o.Status = registry.StatusCritical
		if o.Reason == "busy" {
			o.Status = registry.StatusWarning
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[d.CmdArgs[0].Key] = o
}

func (s *story) events(out *strings.Builder) {
	for {
		batch, more, err := s.watch.Poll()
		if err != nil || !more {
			return
		}
		for _, e := range batch.Events {
			i := e.Instance
			if i == nil {
				continue
			}
			fmt.Fprintf(out, "%d %s %s", e.Revision, i.ID, i.Status)
			for _, c := range i.Conditions() {
				fmt.Fprintf(out, "; %s says %s: %s", c.By, c.Name, c.Reason)
				if c.Held != 0 {
					fmt.Fprintf(out, "; until %ds after it began to fail", (c.Held-c.Since)/1000)
				}
			}
			out.WriteString("\n")
		}
	}
}
