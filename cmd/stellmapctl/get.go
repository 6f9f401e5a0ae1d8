package main

import (
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
		Short: "List services or instances",
		Long: `get lists what the registry knows, as of the revision in the last line. The
read is linearizable: it shows every write that was acknowledged before.`,
		Example: `  stellmapctl get services
  stellmapctl get instances orders -o wide`,
	})
	get.AddCommand(c.getServicesCommand(), c.getInstancesCommand())
	return get
}

func (c *ctl) getServicesCommand() *cobra.Command {
	var namespace string
	var all bool
	cmd := &cobra.Command{
		Use:     "services",
		Aliases: []string{"service"},
		Short:   "List the services of a namespace, or of all",
		Long: `services lists the services of a namespace: how many instances each has, how
many of them pass, its endpoints, and what proxies are not told of it and why.
A service outlives its last instance.`,
		Example: `  stellmapctl get services
  stellmapctl get services -n prod -o wide
  stellmapctl get services -A -o name`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all && cmd.Flags().Changed("namespace") {
				return usagef("-A and -n: give one of them")
			}
			if all {
				namespace = ""
			} else if err := checkSegment("--namespace", namespace); err != nil {
				return err
			}
			return c.getServices(cmd.Context(), namespace)
		},
	}
	namespaceFlag(cmd.Flags(), &namespace)
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "of all namespaces")
	return cmd
}

// getServices shows the services of a namespace, "" for all.
func (c *ctl) getServices(ctx context.Context, namespace string) error {
	r := request{doing: "get services of all namespaces", method: http.MethodGet, path: "/api/v2/services"}
	if namespace != "" {
		r.doing, r.path = "get services of "+namespace, namespacePath(namespace)+"/services"
	}
	list := serviceList{Services: []service{}}
	if err := c.call(ctx, r, &list); err != nil {
		return err
	}
	return c.show(list.view(namespace == "", c.output == formatWide))
}

func (l serviceList) view(all, wide bool) view {
	v := view{
		whole: l,
		items: []any{},
		columns: []column{{"NAMESPACE", false}, {"SERVICE", false}, {"INSTANCES", false}, {"PASSING", false}, {"ENDPOINTS", false},
			{"CREATED", true}, {"REVISION", true}, {"WITHHELD", false}},
		foot: revisionLine(l.Revision),
	}
	for _, s := range l.Services {
		name := s.Service
		if all {
			name = s.Namespace + "/" + s.Service
		}
		v.items = append(v.items, s)
		v.names = append(v.names, name)
		v.rows = append(v.rows, []string{s.Namespace, s.Service, fmt.Sprint(s.Instances), fmt.Sprint(s.Passing), endpointNames(s.Endpoints),
			fmt.Sprint(s.CreatedRevision), fmt.Sprint(s.Revision), reasons(s.Withheld, wide)})
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
	var namespace string
	cmd := &cobra.Command{
		Use:     "instances [SERVICE]",
		Aliases: []string{"instance"},
		Short:   "List the instances of a service, or of a namespace",
		Long: `instances lists the instances of a service, or of a whole namespace, in any
state: status, addresses, zone, the lease and how long ago it was renewed or
ran out, and what proxies are not told of an instance and why.

The registry logs renewals in batches, so RENEWED may be a little older than
the truth.`,
		Example: `  stellmapctl get instances orders
  stellmapctl get instances orders -n prod -o wide
  stellmapctl get instances -o jsonl | jq -r 'select(.status != "passing").instanceId'`,
		Args: atMostOneService,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref := instanceRef{namespace: namespace}
			if err := checkSegment("--namespace", namespace); err != nil {
				return err
			}
			if len(args) == 1 {
				ref.service = args[0]
				if err := checkSegment("SERVICE", ref.service); err != nil {
					return err
				}
			}
			return c.getInstances(cmd.Context(), ref)
		},
	}
	namespaceFlag(cmd.Flags(), &namespace)
	return cmd
}

// getInstances shows the instances of a service, "" for all of the namespace.
func (c *ctl) getInstances(ctx context.Context, of instanceRef) error {
	r := request{doing: "get instances of " + of.namespace, method: http.MethodGet, path: namespacePath(of.namespace) + "/instances"}
	if of.service != "" {
		r.doing, r.path = r.doing+"/"+of.service, of.path()
	}
	list := instanceList{Instances: []instance{}}
	if err := c.call(ctx, r, &list); err != nil {
		return err
	}
	if err := c.show(c.instancesView(list)); err != nil {
		return err
	}
	if len(list.Instances) == 0 && of.service != "" && (c.output == formatTable || c.output == formatWide) {
		return printLine(c.stderr, "no instance of %s/%s; stellmapctl get services -A lists what is there", of.namespace, of.service)
	}
	return nil
}

func (c *ctl) instancesView(l instanceList) view {
	wide := c.output == formatWide
	v := view{
		whole: l,
		items: []any{},
		columns: []column{{"NAMESPACE", true}, {"SERVICE", false}, {"ID", false}, {"STATUS", false}, {"ADDRESS", false}, {"ZONE", false},
			{"REGION", true}, {"GROUP", true}, {"VERSION", true}, {"LABELS", true},
			{"LEASE", false}, {"RENEWED", false}, {"EXPIRED", false}, {"REVISION", true}, {"WITHHELD", false}},
		foot: revisionLine(l.Revision),
	}
	for _, i := range l.Instances {
		v.items = append(v.items, i)
		v.names = append(v.names, i.Service+"/"+i.InstanceID)
		v.rows = append(v.rows, []string{i.Namespace, i.Service, i.InstanceID, i.Status, addresses(i.Endpoints, wide), i.Zone,
			i.Region, i.Group, i.Version, labels(i.Labels),
			fmt.Sprintf("%ds", i.LeaseTTLSeconds), c.ageOf(i.LastHeartbeatAt), c.ageOf(i.ExpiredAt), fmt.Sprint(i.Revision), reasons(i.Withheld, wide)})
	}
	return v
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
