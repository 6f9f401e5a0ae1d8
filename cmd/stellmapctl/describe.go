package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// describedMax is how many instances of a service are shown when nothing else is
// asked for. Those that do not pass come first.
const describedMax = 100

func (c *ctl) describeCommand() *cobra.Command {
	group := c.group(&cobra.Command{
		Use:   "describe",
		Short: "All that is known of a service or an instance, and why it is so",
		Long: `describe shows at one glance who is in a service, in what state, since when and
why, what operators have said, and which proxies lack its last change.`,
		Example: `  stellmapctl describe service orders -n prod
  stellmapctl describe instance orders/orders-1`,
	})
	group.AddCommand(c.describeServiceCommand(), c.describeInstanceCommand())
	return group
}

// described is what describe shows of a service.
type described struct {
	Revision    uint64       `json:"revision"`
	Service     service      `json:"service"`
	Instances   []instance   `json:"instances"`
	Reports     *reports     `json:"reports,omitempty"`     // of those who call it; absent where they could not be asked for
	Load        *load        `json:"load,omitempty"`        // as proxies report it; absent where they could not be asked for
	Propagation *propagation `json:"propagation,omitempty"` // of its last change; absent where it could not be asked
}

// looking is what the flags of describe say.
type looking struct {
	ref   instanceRef
	limit uint
	stale bool
}

func (l *looking) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&l.stale, "stale", false, "whatever the member knows, without asking the leader")
}

func (c *ctl) describeServiceCommand() *cobra.Command {
	var l looking
	cmd := &cobra.Command{
		Use:   "service SERVICE",
		Short: "Who is in a service, in what state, since when and why",
		Long: `service shows a service's instances, those that do not pass first: the state of
each, since when, and all that is said of it, by whom and until when. Below are
what callers have reported of late, overrides that wait for instances to come back,
how many calls proxies report and how they ended, and how far the last change has come among the proxies: those that lack it are
named, with why.`,
		Example: `  stellmapctl describe service orders
  stellmapctl describe service orders -n prod -o json
  stellmapctl describe service orders --stale --server http://10.0.0.2:8080    in an outage`,
		Args: oneService,
		RunE: func(cmd *cobra.Command, args []string) error {
			l.ref.service = args[0]
			if err := checkSegment("SERVICE", l.ref.service); err != nil {
				return err
			}
			if err := checkSegment("--namespace", l.ref.namespace); err != nil {
				return err
			}
			d, err := c.knownOf(cmd.Context(), &l)
			if err != nil {
				return err
			}
			return c.show(c.describedView(d, l.limit))
		},
	}
	l.flags(cmd)
	namespaceFlag(cmd.Flags(), &l.ref.namespace)
	cmd.Flags().UintVar(&l.limit, "limit", describedMax, "show no more than so many instances; 0 shows all")
	return cmd
}

func (c *ctl) describeInstanceCommand() *cobra.Command {
	var l looking
	cmd := &cobra.Command{
		Use:   "instance SERVICE/ID",
		Short: "What state an instance is in, since when and why",
		Long: `instance shows an instance with all that is said of it, by whom, since when and
until when; the first row that counts makes its state. Below is what callers have
reported of it, and how far the last change of its service has come among the proxies.`,
		Example: `  stellmapctl describe instance orders/orders-1
  stellmapctl describe instance orders --id orders-1 -n prod -o yaml`,
		Args: oneInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := l.ref.read(args[0]); err != nil {
				return err
			}
			return c.describeInstance(cmd.Context(), &l)
		},
	}
	l.flags(cmd)
	instanceFlags(cmd, &l.ref)
	return cmd
}

// knownOf reads all that is known of a service. The list of its instances is of
// one revision; what stands beside it may be newer.
func (c *ctl) knownOf(ctx context.Context, l *looking) (described, error) {
	s := selection{namespace: l.ref.namespace, services: []string{l.ref.service}, stale: l.stale}
	services, err := c.list(ctx, "services", &s)
	if err != nil {
		return described{}, err
	}
	if len(services.Services) == 0 {
		return described{}, &failure{doing: "describe " + l.ref.namespace + "/" + l.ref.service, code: "not_found", exit: exitNotFound,
			why:  fmt.Sprintf("no such service at revision %d", services.Revision),
			next: "stellmapctl get services -n " + l.ref.namespace + " lists what is there"}
	}
	instances, err := c.list(ctx, "instances", &s)
	if err != nil {
		return described{}, err
	}
	d := described{Revision: instances.Revision, Service: services.Services[0], Instances: instances.Instances}
	if d.Reports, err = c.reported(ctx, l); err != nil {
		return described{}, err
	}
	if d.Load, err = c.loaded(ctx, l); err != nil {
		return described{}, err
	}
	d.Propagation, err = c.propagated(ctx, l)
	return d, err
}

// propagated is how far a service's last change has come. That it cannot be
// told is said, and is no reason to tell nothing.
func (c *ctl) propagated(ctx context.Context, l *looking) (*propagation, error) {
	p, err := c.propagation(ctx, lookup{ref: l.ref, stale: l.stale})
	if err != nil {
		return nil, printLine(c.stderr, "how far the last change has come is not known: %v", err)
	}
	return &p, nil
}

// calm is the order of what needs attention: what passes comes last.
func calm(i instance) int {
	if i.Status == "passing" && len(i.Conditions) == 0 && len(i.Withheld) == 0 {
		return 1
	}
	return 0
}

func (c *ctl) describedView(d described, limit uint) view {
	shown := slices.Clone(d.Instances)
	slices.SortStableFunc(shown, func(a, b instance) int { return cmp.Compare(calm(a), calm(b)) })
	more := 0
	if limit > 0 && uint(len(shown)) > limit {
		more = len(shown) - int(limit)
		shown = shown[:limit]
	}
	s := d.Service
	v := view{
		whole: d, names: []string{s.Namespace + "/" + s.Service},
		head: fmt.Sprintf("service %s/%s   %s   endpoints %s   created at revision %d, changed at %d",
			s.Namespace, s.Service, counts(s), endpointNames(s.Endpoints), s.CreatedRevision, s.Revision),
		columns: []column{{"ID", false}, {"STATUS", false}, {"SINCE", false}, {"ADDRESS", false}, {"ZONE", false}, {"VERSION", true}, {"LEASE", false},
			{"RENEWED", false}, {"WHY", false}},
	}
	for _, i := range shown {
		v.rows = append(v.rows, []string{i.InstanceID, i.Status, c.ageOf(i.StatusSince), addresses(i.Endpoints, false), i.Zone, i.Version,
			fmt.Sprintf("%ds", i.LeaseTTLSeconds), c.ageOf(i.LastHeartbeatAt), c.because(i)})
	}
	if more > 0 {
		v.foot = fmt.Sprintf("and %s more, which --limit 0 shows", quantity(more, "instance", "instances"))
	}
	if why := c.protectedBy(s); why != "" {
		v.parts = append(v.parts, view{line: why})
	}
	for _, line := range c.protectionLines(s.Protections) {
		v.parts = append(v.parts, view{line: line})
	}
	for _, w := range s.Withheld {
		if w.Instance == "" {
			v.parts = append(v.parts, view{line: "proxies are not told of endpoint " + w.Endpoint + ": " + w.Reason})
		}
	}
	v.parts = append(v.parts, c.reportLines(d.Reports)...)
	if len(s.Overrides) > 0 {
		v.parts = append(v.parts, c.overridesView(s.Overrides))
	}
	v.parts = append(v.parts, d.Load.loadParts()...)
	v.parts = append(v.parts, c.propagationParts(d.Propagation)...)
	v.parts = append(v.parts, view{foot: revisionLine(d.Revision)})
	return v
}

// protectedBy is since when and why all of a service is handed out; "" where it is not.
func (c *ctl) protectedBy(s service) string {
	var protected struct{ Since, Why string }
	if len(s.Protected) == 0 || json.Unmarshal(s.Protected, &protected) != nil {
		return ""
	}
	return fmt.Sprintf("protected since %s: %s", c.ageOf(protected.Since), protected.Why)
}

// counts is how many instances a service has, in which states.
func counts(s service) string {
	text := quantity(s.Instances, "instance", "instances")
	var each []string
	for _, status := range slices.Sorted(maps.Keys(s.Statuses)) {
		each = append(each, fmt.Sprintf("%d %s", s.Statuses[status], status))
	}
	if len(each) > 0 {
		text += ": " + strings.Join(each, ", ")
	}
	return text
}

// because is all that is said of an instance, in one cell.
func (c *ctl) because(i instance) string {
	var out []string
	for _, one := range i.Conditions {
		out = append(out, c.saying(one))
	}
	if i.ExpiredAt != "" {
		out = append(out, "its lease ran out "+c.ageOf(i.ExpiredAt)+" ago")
	}
	if i.Protected {
		out = append(out, "handed out all the same, since too few are healthy")
	}
	for _, w := range i.Withheld {
		out = append(out, "withheld from proxies: "+w.Reason)
	}
	return strings.Join(out, "; ")
}

// saying is a condition in few words.
func (c *ctl) saying(one condition) string {
	text := strings.TrimSpace(one.Source + " " + one.Name)
	if one.Source != "drain" {
		text += ": " + one.Status
	}
	if one.Reason != "" {
		text += ", " + one.Reason
	}
	if one.By != "" {
		text += " (" + one.By + ")"
	}
	if until := c.endOf(one); until != "" {
		text += ", " + until
	}
	return text
}

// endOf is how long a condition lasts, where that is known: a drain until its
// time is over, a check that flaps at least until it is no longer held.
func (c *ctl) endOf(one condition) string {
	if one.HeldUntil != "" {
		return "held " + c.leftOf(one.HeldUntil)
	}
	return c.leftOf(one.Until)
}

// leftOf is how far away a time is, "" where the server wrote none.
func (c *ctl) leftOf(at string) string {
	t, err := time.Parse(time.RFC3339, at)
	switch {
	case err != nil:
		return at
	case t.Before(c.now()):
		return "over"
	}
	return "for " + age(t.Sub(c.now())) + " more"
}

// overridesView are overrides of instances that are gone.
func (c *ctl) overridesView(of []keptOverride) view {
	v := view{
		head:    "overrides that wait for an instance to come back",
		columns: []column{{"ID", false}, {"STATUS", false}, {"SINCE", false}, {"BY", false}, {"REASON", false}},
	}
	for _, o := range of {
		v.rows = append(v.rows, []string{o.InstanceID, o.Status, c.ageOf(o.Since), o.By, o.Reason})
	}
	return v
}

// propagationParts are how many proxies have the last change, and which do not.
func (c *ctl) propagationParts(p *propagation) []view {
	if p == nil {
		return nil
	}
	v := view{line: fmt.Sprintf("%d of %s have revision %d", p.Acknowledged, quantity(p.Interested, "interested proxy", "interested proxies"), p.Revision)}
	if p.Interested == 0 {
		v.line = "no connected proxy is interested in it"
	}
	for _, m := range p.Members {
		if m.Error != "" {
			v.line += fmt.Sprintf("; member %d does not say: %s", m.ID, m.Error)
		}
	}
	if len(p.Pending) > 0 {
		v.columns = []column{{"NODE", false}, {"MEMBER", false}, {"LACKS", false}, {"STATE", false}, {"SINCE", false}, {"PEER", true}, {"REASON", false}}
	}
	for _, one := range p.Pending {
		v.rows = append(v.rows, []string{one.Node, fmt.Sprint(one.Member), one.Type + " " + one.Resource, one.State, c.ageOf(one.Since), one.Peer, one.Reason})
	}
	return append([]view{v}, c.refusedParts(p.Refused)...)
}

// refusedParts are what proxies refuse of the service, and by whom that came.
func (c *ctl) refusedParts(of []proxyRefusal) []view {
	var out []view
	for _, r := range of {
		nodes := strings.Join(r.Nodes, ", ")
		if more := r.Proxies - len(r.Nodes); more > 0 {
			nodes += fmt.Sprintf(" and %d more", more)
		}
		line := fmt.Sprintf("%s %s is refused by %s of member %d (%s) since %s: %q", r.Type, r.Resource, quantity(r.Proxies, "proxy", "proxies"), r.Member, nodes, c.ageOf(r.Since), r.Reason)
		out = append(out, view{line: line})
		if r.Cause != nil {
			out = append(out, view{line: "  it came by " + c.causeText(*r.Cause)})
		}
	}
	return out
}

// describedInstance is what describe shows of an instance.
type describedInstance struct {
	instance
	Reports     *reports     `json:"reports,omitempty"`
	Propagation *propagation `json:"propagation,omitempty"`
}

func (c *ctl) describeInstance(ctx context.Context, l *looking) error {
	var d describedInstance
	path := l.ref.path()
	if l.stale {
		path += "?consistency=stale"
	}
	if err := c.call(ctx, request{doing: "describe " + l.ref.String(), method: http.MethodGet, path: path}, &d.instance); err != nil {
		return err
	}
	var err error
	if d.Reports, err = c.reported(ctx, l); err != nil {
		return err
	}
	if d.Propagation, err = c.propagated(ctx, l); err != nil {
		return err
	}
	return c.show(c.instanceView(d))
}

// leaseOf is what keeps an instance. When a shared lease was renewed, its instances do not say.
func (c *ctl) leaseOf(i instance) string {
	if i.LeaseID != "" {
		return fmt.Sprintf("%ds, shared: %s", i.LeaseTTLSeconds, i.LeaseID)
	}
	return fmt.Sprintf("%ds, renewed %s ago", i.LeaseTTLSeconds, c.ageOf(i.LastHeartbeatAt))
}

func (c *ctl) instanceView(d describedInstance) view {
	i := d.instance
	v := view{
		whole: d, names: []string{i.Service + "/" + i.InstanceID},
		line: fmt.Sprintf("instance %s/%s/%s   %s since %s", i.Namespace, i.Service, i.InstanceID, i.Status, c.ageOf(i.StatusSince)),
	}
	facts := view{columns: []column{{"FACT", false}, {"VALUE", false}}}
	for _, fact := range [][2]string{
		{"address", addresses(i.Endpoints, true)}, {"zone", i.Zone}, {"region", i.Region}, {"group", i.Group}, {"version", i.Version},
		{"labels", labels(i.Labels)}, {"metadata", labels(i.Metadata)},
		{"lease", c.leaseOf(i)},
		{"registered", c.ageOf(i.RegisteredAt) + " ago"}, {"changed", fmt.Sprintf("at revision %d", i.Revision)},
	} {
		if fact[1] != "" {
			facts.rows = append(facts.rows, fact[:])
		}
	}
	if i.Protected {
		facts.rows = append(facts.rows, []string{"protected", "handed out all the same, since too few of its service are healthy"})
	}
	if checks := i.checkStates(); checks != "" {
		facts.rows = append(facts.rows, []string{"checks", checks})
	}
	if i.ExpiredAt != "" {
		facts.rows = append(facts.rows, []string{"expired", c.ageOf(i.ExpiredAt) + " ago"})
	}
	for _, w := range i.Withheld {
		facts.rows = append(facts.rows, []string{"withheld", strings.TrimSpace(w.Endpoint + ": " + w.Reason)})
	}
	v.parts = append(v.parts, facts, c.conditionsView(i.Conditions))
	v.parts = append(v.parts, c.reportLines(d.Reports)...)
	v.parts = append(v.parts, c.propagationParts(d.Propagation)...)
	return v
}

func (c *ctl) conditionsView(of []condition) view {
	if len(of) == 0 {
		return view{line: "nobody says anything of it"}
	}
	v := view{columns: []column{{"SOURCE", false}, {"NAME", false}, {"STATUS", false}, {"SINCE", false}, {"UNTIL", false}, {"BY", false}, {"REASON", false}}}
	for _, one := range of {
		v.rows = append(v.rows, []string{one.Source, one.Name, one.Status, c.ageOf(one.Since), c.endOf(one), one.By, one.Reason})
	}
	return v
}
