package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

const (
	watchWait     = 30 * time.Second // for which one question waits for a change
	watchAgain    = time.Second      // between a question that failed and the next
	watchWaitMore = watchWait / 8    // the server adds up to a sixteenth
)

func (c *ctl) watchCommand() *cobra.Command {
	var s selection
	var revision string
	cmd := &cobra.Command{
		Use:   "watch [SERVICE...]",
		Short: "Show what changes of services, of a namespace, or of all, as it happens",
		Long: `watch shows the instances that are there and then every change of one: what is
new, what differs and how, what is gone. It takes the filters of get instances: an
instance that no longer matches is gone. A renewal is no change.

It goes on until Ctrl-C. While the member does not answer it asks again every
second, and has missed nothing when it is back; when too much has changed meanwhile
it shows all there is anew. --revision goes on from a write, or from the last line
of another watch.`,
		Example: `  stellmapctl watch orders
  stellmapctl watch -n prod --status routable --zone a
  stellmapctl watch -A -o jsonl | jq -r 'select(.type == "delete").instanceId'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s.services = args
			if err := s.check(cmd.Flags()); err != nil {
				return err
			}
			if !slices.Contains([]format{formatTable, formatWide, formatJSON, formatJSONL}, c.output) {
				return usagef("-o: watch prints %s, %s, %s or %s, a line for each change", formatTable, formatWide, formatJSON, formatJSONL)
			}
			return c.watch(cmd.Context(), &s, revision)
		},
	}
	s.filterFlags(cmd.Flags())
	cmd.Flags().StringVar(&revision, "revision", "", "what came after it, in place of all there is first")
	return cmd
}

// watched is the answer to one question.
type watched struct {
	Revision  uint64          `json:"revision"`
	Resume    string          `json:"resume"`
	Type      string          `json:"type"`
	Reason    string          `json:"reason,omitempty"`
	Instances []instance      `json:"instances"`
	Changes   []watchedChange `json:"changes"`
}

// watchedWhole is all there is, as a line of JSON.
type watchedWhole struct {
	Revision  uint64     `json:"revision"`
	Type      string     `json:"type"`
	Reason    string     `json:"reason"`
	Instances []instance `json:"instances"`
}

type watchedChange struct {
	Revision   uint64    `json:"revision"`
	Type       string    `json:"type"`
	Created    bool      `json:"created,omitempty"`
	Namespace  string    `json:"namespace"`
	Service    string    `json:"service"`
	InstanceID string    `json:"instanceId"`
	Instance   *instance `json:"instance,omitempty"`
}

// A spectator shows what changes, and knows what it has shown last of each instance.
type spectator struct {
	c       *ctl
	s       *selection
	resume  string
	status  map[string]string // by name
	trouble string            // the code of what was last said to be wrong
}

func (c *ctl) watch(ctx context.Context, s *selection, revision string) error {
	patient := *c
	patient.timeout += watchWait + watchWaitMore
	w := &spectator{c: &patient, s: s, resume: revision, status: make(map[string]string)}
	for asked := false; ; asked = true {
		told, err := w.ask(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !asked:
			return err
		case err != nil:
			err = w.pause(ctx, err)
		default:
			err = w.show(&told)
		}
		if err != nil {
			return err
		}
	}
}

func (w *spectator) ask(ctx context.Context) (watched, error) {
	p := w.s.parameters("watch")
	if !w.s.all {
		p.Set("namespace", w.s.namespace)
	}
	p.Set("wait", watchWait.String())
	if w.resume != "" {
		p.Set("revision", w.resume)
	}
	var told watched
	err := w.c.call(ctx, request{doing: "watch " + w.s.where(), method: http.MethodGet, path: "/api/v2/watch?" + p.Encode()}, &told)
	return told, err
}

// pause says what is wrong when that has changed, and waits.
func (w *spectator) pause(ctx context.Context, err error) error {
	if f := asFailure(err, true); f.code != w.trouble {
		w.trouble = f.code
		if err := printLine(w.c.stderr, "stellmapctl: %s", printable(fmt.Sprintf("%v; trying again every %v", f, watchAgain))); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
	case <-w.c.after(watchAgain):
	}
	return nil
}

func (w *spectator) show(told *watched) error {
	w.resume, w.trouble = told.Resume, ""
	if told.Type == "snapshot" {
		if err := w.showWhole(told); err != nil {
			return err
		}
	}
	for i := range told.Changes {
		if err := w.showChange(&told.Changes[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w *spectator) asLines() bool { return w.c.output == formatJSON || w.c.output == formatJSONL }

func (w *spectator) showWhole(told *watched) error {
	clear(w.status)
	if w.asLines() {
		return w.line(watchedWhole{Revision: told.Revision, Type: told.Type, Reason: told.Reason, Instances: told.Instances})
	}
	if err := w.row(told.Revision, "ALL", fmt.Sprintf("%d instances (%s)", len(told.Instances), told.Reason)); err != nil {
		return err
	}
	for n := range told.Instances {
		i := &told.Instances[n]
		name := w.name(i.Namespace, i.Service, i.InstanceID)
		w.status[name] = i.Status
		if err := w.row(told.Revision, "HAS", name+"  "+w.state(i, "")); err != nil {
			return err
		}
	}
	return nil
}

func (w *spectator) showChange(c *watchedChange) error {
	if w.asLines() {
		return w.line(c)
	}
	name := w.name(c.Namespace, c.Service, c.InstanceID)
	before := w.status[name]
	if c.Instance == nil {
		delete(w.status, name)
		return w.row(c.Revision, "GONE", name)
	}
	w.status[name] = c.Instance.Status
	if c.Created {
		return w.row(c.Revision, "NEW", name+"  "+w.state(c.Instance, ""))
	}
	return w.row(c.Revision, "UPDATE", name+"  "+w.state(c.Instance, before))
}

func (w *spectator) name(namespace, service, id string) string {
	if w.s.all {
		return namespace + "/" + service + "/" + id
	}
	return service + "/" + id
}

// state is how an instance is, where from if that has changed, why, and where it listens.
func (w *spectator) state(i *instance, before string) string {
	text := i.Status
	if before != "" && before != i.Status {
		text = before + " -> " + text
	}
	for _, said := range i.Conditions {
		if said.Status == i.Status && said.Reason != "" {
			text += " (" + said.Reason + ")"
			break
		}
	}
	return text + "  " + addresses(i.Endpoints, w.c.output == formatWide)
}

func (w *spectator) row(revision uint64, what, text string) error {
	return printLine(w.c.stdout, "%s", printable(fmt.Sprintf("rev %-7d %s  %-6s  %s", revision, w.c.now().UTC().Format(time.TimeOnly), what, text)))
}

func (w *spectator) line(v any) error {
	line, err := asJSON(v, "")
	if err != nil {
		return err
	}
	if _, err := w.c.stdout.Write(line); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
