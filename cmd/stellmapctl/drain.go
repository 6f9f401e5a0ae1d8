package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// The defaults of a drain that is waited for, and what its parts take.
const (
	drainTimeoutDefault = time.Minute
	settleDefault       = 2 * time.Second
	drainMargin         = time.Minute            // that an instance is kept beyond the wait, to be stopped in
	lookMax             = 30 * time.Second       // one call waits no longer
	lookAgain           = 250 * time.Millisecond // after a call that failed
)

// draining is what the flags of drain say.
type draining struct {
	ref              instanceRef
	by               holder
	lasts            time.Duration // 0 = the server's
	reason           string
	wait, remove     bool
	timeout, settles time.Duration
}

// drained is what drain shows.
type drained struct {
	written
	Propagation *propagation `json:"propagation,omitempty"` // with --wait
	Removed     bool         `json:"removed"`
}

func (c *ctl) drainCommand() *cobra.Command {
	var d draining
	cmd := &cobra.Command{
		Use:   "drain SERVICE/ID",
		Short: "Take an instance out of use, and wait until no proxy sends it new calls",
		Long: `drain has callers leave an instance: proxies finish what they have begun there
and begin nothing new. It is removed when its time is over; until then
undrain takes it back. Who registers or renews it does not end that. One that was
registered with a lease token is drained by who presents it, or by an operator
with --force.

With --wait the command ends when every connected proxy of every member has
acknowledged the drain, and a moment more has passed: a proxy's threads take a
change over one by one. Then the instance can be stopped, and no call fails. If a
proxy has not after --timeout, it is named, with why, and the exit code is 7;
the instance goes on draining.

Stop the process before its drain is over: one that is still there is told by its
next heartbeat that it is not registered, and registers itself anew. --remove
takes it out at once, which is for processes that do not.`,
		Example: `  stellmapctl drain orders/orders-1 --wait && systemctl stop orders
  stellmapctl drain orders/orders-1 --wait --force --token "$(cat stellmap-data/admin.token)"
  stellmapctl drain orders/orders-1 -n prod --wait --timeout 5m --reason 'deploy of 1.4'
  stellmapctl drain orders --id orders-1 --for 10m`,
		Args: oneInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.ref.read(args[0]); err != nil {
				return err
			}
			if err := d.check(cmd, c); err != nil {
				return err
			}
			return c.drain(cmd.Context(), &d)
		},
	}
	flags := cmd.Flags()
	instanceFlags(cmd, &d.ref)
	holderFlags(flags, &d.by)
	flags.DurationVar(&d.lasts, "for", 0, "when it is removed; 0s is a minute, or with --wait a minute more than that may take")
	flags.StringVar(&d.reason, "reason", "", "why, for others to read")
	flags.BoolVar(&d.wait, "wait", false, "wait until every connected proxy has it")
	flags.DurationVar(&d.timeout, "timeout", drainTimeoutDefault, "how long --wait waits; without it, for an answer")
	flags.DurationVar(&d.settles, "settle", settleDefault, "how much longer, for the proxies' threads to take it over")
	flags.BoolVar(&d.remove, "remove", false, "with --wait: remove it then, without waiting for its time")
	return cmd
}

func (d *draining) check(cmd *cobra.Command, c *ctl) error {
	flags := cmd.Flags()
	switch {
	case d.lasts < 0 || d.lasts%time.Second != 0:
		return usagef("--for: %v is not a time in whole seconds, such as 5m", d.lasts)
	case d.timeout <= 0:
		return usagef("--timeout: %v is no time to wait, such as 1m", d.timeout)
	case d.settles < 0:
		return usagef("--settle: %v is negative", d.settles)
	case !d.wait && d.remove:
		return usagef("--remove: is for --wait; stellmapctl deregister removes at once")
	case !d.wait && flags.Changed("settle"):
		return usagef("--settle: is for --wait")
	case !d.wait && flags.Changed("timeout"):
		c.timeout = d.timeout
	}
	if d.wait && d.lasts == 0 {
		d.lasts = (d.timeout + d.settles + drainMargin).Round(time.Second)
	}
	return nil
}

// oneInstance is one argument, SERVICE/ID or SERVICE.
func oneInstance(cmd *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return usagef("%s wants an instance: SERVICE/ID", nameOf(cmd))
	case 1:
		return nil
	}
	return usagef("%s takes one instance, got %q too", nameOf(cmd), args[1])
}

func instanceFlags(cmd *cobra.Command, ref *instanceRef) {
	namespaceFlag(cmd.Flags(), &ref.namespace)
	cmd.Flags().StringVar(&ref.id, "id", "", "the instance's id, where the argument is the service alone")
}

// read takes SERVICE/ID, or SERVICE with the id from --id. Neither has a slash in it.
func (r *instanceRef) read(argument string) error {
	service, id, both := strings.Cut(argument, "/")
	r.service = service
	switch {
	case both && r.id != "":
		return usagef("%q names an instance, and --id does too: give one of them", argument)
	case both && id == "":
		return usagef("%q ends without the id of an instance: SERVICE/ID", argument)
	case both:
		r.id = id
	case r.id == "":
		return usagef("%q names no instance: SERVICE/ID, or --id beside it", argument)
	}
	return r.check()
}

func (c *ctl) drain(ctx context.Context, d *draining) error {
	doing := "drain " + d.ref.String()
	begun := c.now()
	var out drained
	body := struct {
		Seconds int64  `json:"seconds"`
		Reason  string `json:"reason"`
	}{int64(d.lasts / time.Second), d.reason}
	if err := c.call(ctx, request{doing: doing, method: http.MethodPost, path: d.ref.path() + "/drain", body: body, by: d.by}, &out.written); err != nil {
		return err
	}
	if !d.wait {
		return c.show(out.view(d, ""))
	}
	all, err := c.awaitProxies(ctx, d, out.Revision, begun.Add(d.timeout))
	if err != nil {
		return err
	}
	out.Propagation = &all
	if d.remove {
		answer, err := c.delete(ctx, d.ref, d.by)
		if err != nil {
			return err
		}
		out.Removed = true
		return c.show(out.view(d, fmt.Sprintf("   removed   rev %d", answer.Revision)))
	}
	return c.show(out.view(d, fmt.Sprintf("   stop it now: in %v it is removed", (d.lasts-c.now().Sub(begun)).Round(time.Second))))
}

func (o *drained) view(d *draining, then string) view {
	line := fmt.Sprintf("draining %s   rev %d", d.ref.short(), o.Revision)
	if p := o.Propagation; p != nil {
		line = fmt.Sprintf("drained %s   rev %d   no new calls from %s", d.ref.short(), o.Revision, quantity(p.Interested, "proxy", "proxies"))
	}
	return view{whole: o, names: []string{d.ref.short()}, line: line + then}
}

// quantity is a number with its noun.
func quantity(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// awaitProxies waits until all proxies have a revision and the settle time has
// passed. Then it looks once more: one may have come meanwhile, from a member
// that ended, with what it had there.
func (c *ctl) awaitProxies(ctx context.Context, d *draining, revision uint64, until time.Time) (propagation, error) {
	for {
		p, err := c.awaitOnce(ctx, d.ref, revision, until)
		if err != nil {
			return p, err
		}
		if !p.Complete {
			return p, p.late(d, revision)
		}
		if err := c.pause(ctx, d.settles); err != nil {
			return p, err
		}
		if p, err = c.propagation(ctx, lookup{ref: d.ref, revision: revision}); err == nil && p.Complete {
			return p, nil
		}
	}
}

// awaitOnce asks until all proxies have a revision, or the time is over. A call
// that fails is made again: a member that ends must not end the wait.
func (c *ctl) awaitOnce(ctx context.Context, ref instanceRef, revision uint64, until time.Time) (propagation, error) {
	for {
		left := max(0, until.Sub(c.now()))
		p, err := c.propagation(ctx, lookup{ref: ref, revision: revision, wait: min(left, lookMax).Round(time.Millisecond)})
		var f *failure
		switch {
		case err == nil && (p.Complete || left == 0):
			return p, nil
		case err == nil: // a member that did not answer may do so, and proxies come and go
		case ctx.Err() != nil || left == 0 || !errors.As(err, &f) || f.exit != exitUnreachable && f.exit != exitTimeout:
			return p, err
		}
		if err := c.pause(ctx, lookAgain); err != nil {
			return p, err
		}
	}
}

// pause waits, but not beyond the end of the command.
func (c *ctl) pause(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	select {
	case <-c.after(d):
		return nil
	case <-ctx.Done():
		return &failure{code: "interrupted", exit: exitFailed, why: "interrupted while waiting for proxies; the instance goes on draining"}
	}
}

// late says who has not acknowledged a drain.
func (p *propagation) late(d *draining, revision uint64) error {
	f := &failure{doing: "drain " + d.ref.String(), code: "timeout", exit: exitTimeout,
		why:  fmt.Sprintf("after %v %d of %s have acknowledged revision %d", d.timeout, p.Acknowledged, quantity(p.Interested, "proxy", "proxies"), revision),
		next: "it goes on draining: the same command waits again, stellmapctl undrain takes it back"}
	for _, one := range p.Pending {
		f.fields = append(f.fields, fieldProblem{one.Node, fmt.Sprintf("member %d, %s: %s %s, %s", one.Member, one.Peer, one.Type, one.Resource, one.why())})
	}
	if more := p.Interested - p.Acknowledged - len(p.Pending); more > 0 {
		f.fields = append(f.fields, fieldProblem{"...", quantity(more, "other proxy", "other proxies")})
	}
	for _, m := range p.Members {
		if m.Error != "" {
			f.fields = append(f.fields, fieldProblem{fmt.Sprintf("member %d", m.ID), "does not say what its proxies have: " + m.Error})
		}
	}
	return f
}

func (c *ctl) undrainCommand() *cobra.Command {
	var ref instanceRef
	var by holder
	cmd := &cobra.Command{
		Use:   "undrain SERVICE/ID",
		Short: "Take a drain back",
		Long: `undrain takes a drain back: callers use the instance again. It is no error that
it was not draining.`,
		Example: `  stellmapctl undrain orders/orders-1`,
		Args:    oneInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := ref.read(args[0]); err != nil {
				return err
			}
			r := request{doing: "undrain " + ref.String(), method: http.MethodDelete, path: ref.path() + "/drain", by: by}
			return c.say(cmd.Context(), ref, r, "drains no more", "was not draining")
		},
	}
	instanceFlags(cmd, &ref)
	holderFlags(cmd.Flags(), &by)
	return cmd
}

// say has the server say something of an instance, or take it back.
func (c *ctl) say(ctx context.Context, ref instanceRef, r request, done, already string) error {
	var answer written
	if err := c.call(ctx, r, &answer); err != nil {
		return err
	}
	what := done
	if answer.Changed != nil && !*answer.Changed {
		what = already
	}
	return c.show(view{whole: answer, names: []string{ref.short()}, line: fmt.Sprintf("%s %s   rev %d", ref.short(), what, answer.Revision)})
}

// propagation is how far a service has come among the proxies.
type propagation struct {
	Namespace    string              `json:"namespace"`
	Service      string              `json:"service"`
	Revision     uint64              `json:"revision"`
	Complete     bool                `json:"complete"`
	Interested   int                 `json:"interested"`
	Acknowledged int                 `json:"acknowledged"`
	Pending      []pendingProxy      `json:"pending,omitempty"`
	Refused      []proxyRefusal      `json:"refused,omitempty"`
	Members      []memberPropagation `json:"members"`
}

type pendingProxy struct {
	Node     string `json:"node"`
	Member   uint64 `json:"member"`
	Peer     string `json:"peer"`
	Type     string `json:"type"`
	Resource string `json:"resource"`
	State    string `json:"state"`
	Since    string `json:"since"`
	Reason   string `json:"reason,omitempty"`
}

// A proxyRefusal is one thing of a service that proxies of a member refuse for one reason.
type proxyRefusal struct {
	Member   uint64       `json:"member"`
	Type     string       `json:"type"`
	Resource string       `json:"resource"`
	Proxies  int          `json:"proxies"`
	Nodes    []string     `json:"nodes"` // the first of them
	Since    string       `json:"since"`
	Reason   string       `json:"reason"`
	Cause    *policyCause `json:"cause,omitempty"`
}

type memberPropagation struct {
	ID           uint64 `json:"id"`
	Revision     uint64 `json:"revision"`
	Interested   int    `json:"interested"`
	Acknowledged int    `json:"acknowledged"`
	Error        string `json:"error,omitempty"`
}

// why is where a proxy is, in words.
func (p *pendingProxy) why() string {
	text := p.State + " since " + p.Since
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}

// A lookup asks how far a service has come.
type lookup struct {
	ref      instanceRef
	revision uint64 // 0 = its last one
	wait     time.Duration
	stale    bool
}

func (c *ctl) propagation(ctx context.Context, l lookup) (propagation, error) {
	query := make(url.Values)
	if l.revision > 0 {
		query.Set("revision", fmt.Sprint(l.revision))
	}
	if l.wait > 0 {
		query.Set("wait", l.wait.String())
	}
	if l.stale {
		query.Set("consistency", "stale")
	}
	path := namespacePath(l.ref.namespace) + "/services/" + url.PathEscape(l.ref.service) + "/propagation"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	patient := *c
	patient.timeout += l.wait
	var out propagation
	err := patient.call(ctx, request{doing: "look how far " + l.ref.namespace + "/" + l.ref.service + " has come", method: http.MethodGet, path: path}, &out)
	return out, err
}
