package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const namespaceDefault = "default"

// namespaceFlag is -n of the commands that work within one namespace.
func namespaceFlag(flags *pflag.FlagSet, to *string) {
	flags.StringVarP(to, "namespace", "n", namespaceDefault, "the namespace")
}

func (c *ctl) getCommand() *cobra.Command {
	get := c.group(&cobra.Command{
		Use:   "get",
		Short: "List services, instances or namespaces, or show a policy or what a service calls",
		Long: `get lists what the registry knows, as of the revision in the last line. The
read is linearizable, unless --stale is given: it shows every write that was
acknowledged before.`,
		Example: `  stellmapctl get services
  stellmapctl get instances orders -o wide`,
	})
	get.AddCommand(c.getServicesCommand(), c.getInstancesCommand(), c.getNamespacesCommand(), c.getPolicyCommand(), c.getUpstreamsCommand())
	return get
}

func (c *ctl) getServicesCommand() *cobra.Command {
	var s selection
	cmd := &cobra.Command{
		Use:     "services",
		Aliases: []string{"service"},
		Short:   "List the services of a namespace, or of all",
		Long: `services lists the services of a namespace: how many instances each has, how
many of them pass, its endpoints, and what proxies are not told of it and why.
A service outlives its last instance. Below the table is where nothing expires at
the moment, why, and what ends it.

With filters for instances it lists the services of which at least one instance
matches all of them; -o wide says how many do.`,
		Example: `  stellmapctl get services
  stellmapctl get services -n prod -o wide
  stellmapctl get services -A -o name
  stellmapctl get services -A --organization acme --status expired -o wide`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.check(cmd.Flags()); err != nil {
				return err
			}
			return c.getServices(cmd.Context(), &s)
		},
	}
	s.flags(cmd.Flags())
	return cmd
}

func (c *ctl) getServices(ctx context.Context, s *selection) error {
	found, err := c.list(ctx, "services", s)
	if err != nil {
		return err
	}
	if s.count {
		return c.showCount(found)
	}
	v := serviceList{found.Revision, found.Services}.view(s.all, c.output == formatWide)
	for _, s := range found.Services {
		v.notes = append(v.notes, c.protectionLines(s.Protections)...)
	}
	v.foot = found.foot()
	return c.show(v)
}

func (l serviceList) view(all, wide bool) view {
	v := view{
		whole: l,
		items: []any{},
		columns: []column{{"NAMESPACE", false}, {"SERVICE", false}, {"INSTANCES", false}, {"PASSING", false}, {"ENDPOINTS", false},
			{"MATCHING", true}, {"CREATED", true}, {"REVISION", true}, {"WITHHELD", false}},
	}
	for _, s := range l.Services {
		name := s.Service
		if all {
			name = s.Namespace + "/" + s.Service
		}
		v.items = append(v.items, s)
		v.names = append(v.names, name)
		v.rows = append(v.rows, []string{s.Namespace, s.Service, fmt.Sprint(s.Instances), fmt.Sprint(s.Passing), endpointNames(s.Endpoints),
			fmt.Sprint(s.Matching), fmt.Sprint(s.CreatedRevision), fmt.Sprint(s.Revision), reasons(s.Withheld, wide)})
	}
	return v
}

// endpointNames shows a protocol where the name does not say it already.
func endpointNames(of []serviceEndpoint) string {
	var out []string
	for _, e := range of {
		if e.Name == e.Protocol {
			out = append(out, e.Name)
		} else {
			out = append(out, e.Name+"="+e.Protocol)
		}
	}
	return strings.Join(out, ",")
}

// reasons is why something is withheld from proxies: all of it in a wide table,
// else the first and how many more.
func reasons(of []withheld, wide bool) string {
	var out []string
	for _, w := range of {
		text := w.Reason
		if about := strings.Trim(w.Instance+" "+w.Endpoint, " "); about != "" {
			text = about + ": " + w.Reason
		}
		out = append(out, text)
	}
	if len(out) > 1 && !wide {
		return fmt.Sprintf("%s (and %d more)", out[0], len(out)-1)
	}
	return strings.Join(out, "; ")
}

func (c *ctl) getInstancesCommand() *cobra.Command {
	var s selection
	var from standpoint
	cmd := &cobra.Command{
		Use:     "instances [SERVICE...]",
		Aliases: []string{"instance"},
		Short:   "List the instances of services, of a namespace, or of all",
		Long: `instances lists the instances of a service, of several, or of a whole namespace,
in any state: status, addresses, zone, the lease and how long ago it was renewed
or ran out, and what proxies are not told of an instance and why.

All filters that are given must match; of one that is given several times, any
value, but of --selector all. A long list is read in pages, all as of the
revision in the last line.

With --failover it lists what a client at some place is given of one service, by
the policy's mode or another, those first that are called first, and says which
regions give less than they have, and why; filters are of what is given.

The registry logs renewals in batches, so RENEWED may be a little older than
the truth.`,
		Example: `  stellmapctl get instances orders
  stellmapctl get instances orders payments -n prod -o wide
  stellmapctl get instances -A -l 'track in (canary,beta),team!=qa' --zone a --zone b
  stellmapctl get instances -n prod --prefix acme. --role api --count
  stellmapctl get instances orders --failover policy --from-region cn-sh
  stellmapctl get instances -o jsonl | jq -r 'select(.status != "passing").instanceId'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s.services = args
			if err := cmp.Or(s.check(cmd.Flags()), from.check(&s)); err != nil {
				return err
			}
			if from.failover != "" {
				return c.getGiven(cmd.Context(), &s, &from)
			}
			return c.getInstances(cmd.Context(), &s)
		},
	}
	s.flags(cmd.Flags())
	from.flags(cmd, "what a client is given: policy, "+strings.Join(failoverModes, ", "), append([]string{"policy"}, failoverModes...))
	return cmd
}

func (c *ctl) getInstances(ctx context.Context, s *selection) error {
	found, err := c.list(ctx, "instances", s)
	if err != nil {
		return err
	}
	if s.count {
		return c.showCount(found)
	}
	v := c.instancesView(instanceList{found.Revision, found.Instances}, s.all)
	v.foot = found.foot()
	if err := c.show(v); err != nil {
		return err
	}
	if len(found.Instances) > 0 || len(s.services) == 0 || c.output != formatTable && c.output != formatWide {
		return nil
	}
	if s.filtered() {
		return printLine(c.stderr, "no instance of %s matches; without filters the list has all of them", s.where())
	}
	return printLine(c.stderr, "no instance of %s; stellmapctl get services -A lists what is there", s.where())
}

func (c *ctl) instancesView(l instanceList, all bool) view {
	wide := c.output == formatWide
	v := view{
		whole: l,
		items: []any{},
		columns: []column{{"NAMESPACE", !all}, {"SERVICE", false}, {"ID", false}, {"STATUS", false}, {"ADDRESS", false}, {"ZONE", false},
			{"REGION", true}, {"GROUP", true}, {"VERSION", true}, {"LABELS", true},
			{"CHECKS", true}, {"LEASE", false}, {"RENEWED", false}, {"EXPIRED", false}, {"REVISION", true}, {"WITHHELD", false}},
	}
	for _, i := range l.Instances {
		name := i.Service + "/" + i.InstanceID
		if all {
			name = i.Namespace + "/" + name
		}
		v.items = append(v.items, i)
		v.names = append(v.names, name)
		v.rows = append(v.rows, []string{i.Namespace, i.Service, i.InstanceID, i.Status, addresses(i.Endpoints, wide), i.Zone,
			i.Region, i.Group, i.Version, labels(i.Labels),
			i.checkStates(), fmt.Sprintf("%ds", i.LeaseTTLSeconds), c.ageOf(i.LastHeartbeatAt), c.ageOf(i.ExpiredAt), fmt.Sprint(i.Revision), reasons(i.Withheld, wide)})
	}
	return v
}

func (c *ctl) getNamespacesCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "namespaces",
		Aliases: []string{"namespace", "ns"},
		Short:   "List the namespaces",
		Long: `namespaces lists the namespaces that have services or a document: how many, how
many instances they have, how many of these pass, how many have a lease that
holds, and what their quotas allow. apply writes a quota.`,
		Example: `  stellmapctl get namespaces
  stellmapctl get namespaces -o name`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.getNamespaces(cmd.Context()) },
	}
}

func (c *ctl) getNamespaces(ctx context.Context) error {
	list := namespaceList{Namespaces: []namespace{}}
	r := request{doing: "get namespaces", method: http.MethodGet, path: "/api/v2/namespaces"}
	if err := c.call(ctx, r, &list); err != nil {
		return err
	}
	v := view{
		whole: list, items: []any{}, foot: revisionLine(list.Revision),
		columns: []column{{"NAMESPACE", false}, {"SERVICES", false}, {"INSTANCES", false}, {"PASSING", false}, {"QUOTA", false}, {"DESCRIPTION", true}},
	}
	for _, n := range list.Namespaces {
		v.items = append(v.items, n)
		v.names = append(v.names, n.Namespace)
		v.rows = append(v.rows, []string{n.Namespace, fmt.Sprint(n.Services), fmt.Sprint(n.Instances), fmt.Sprint(n.Passing), n.quota(), n.Description})
	}
	return c.show(v)
}

// quota shows what a namespace has of what it may have.
func (n *namespace) quota() string {
	if n.Quota == nil {
		return ""
	}
	var out []string
	if n.Quota.Services != nil {
		out = append(out, fmt.Sprintf("%d/%d services", n.Services, *n.Quota.Services))
	}
	if n.Quota.Instances != nil {
		out = append(out, fmt.Sprintf("%d/%d instances", n.Alive, *n.Quota.Instances))
	}
	return strings.Join(out, ", ")
}

// addresses shows endpoints as URLs, in a wide table in the form that --addr takes.
func addresses(of []endpoint, wide bool) string {
	var out []string
	for _, e := range of {
		if wide {
			out = append(out, e.String())
		} else {
			out = append(out, e.url())
		}
	}
	return strings.Join(out, ",")
}

func labels(of map[string]string) string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(of)) {
		out = append(out, key+"="+of[key])
	}
	return strings.Join(out, ",")
}
