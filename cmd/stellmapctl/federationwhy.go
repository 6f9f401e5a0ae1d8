package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// discovery is what a client at some place is given of a service.
type discovery struct {
	Namespace  string               `json:"namespace"`
	Service    string               `json:"service"`
	Revision   uint64               `json:"revision"`
	FromRegion string               `json:"fromRegion"`
	FromZone   string               `json:"fromZone,omitempty"`
	Mode       string               `json:"mode"`
	Exported   string               `json:"exported"`
	Regions    []discoveredRegion   `json:"regions"`
	Instances  []discoveredInstance `json:"instances"`
	More       bool                 `json:"more,omitempty"`
}

type discoveredRegion struct {
	Region     string         `json:"region"`
	ClusterID  uint64         `json:"clusterId,omitempty"`
	AgeMs      *int64         `json:"ageMs,omitempty"`
	Connected  bool           `json:"connected"`
	Instances  int            `json:"instances"`
	Suspect    int            `json:"suspect,omitempty"`
	Withheld   int            `json:"withheld,omitempty"`
	Given      int            `json:"given"`
	Gateways   int            `json:"gateways,omitempty"`
	Priorities []int          `json:"priorities,omitempty"`
	Why        []regionReason `json:"why"`
}

type regionReason struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

type discoveredInstance struct {
	InstanceID string             `json:"instanceId"`
	Region     string             `json:"region"`
	Zone       string             `json:"zone,omitempty"`
	Status     string             `json:"status"`
	Priority   int                `json:"priority"`
	Gateway    *discoveredGateway `json:"gateway,omitempty"`
}

type discoveredGateway struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
}

func (c *ctl) federationWhyCommand() *cobra.Command {
	var namespace string
	var from standpoint
	cmd := &cobra.Command{
		Use:   "why SERVICE",
		Short: "What a client is given of a service, and of each region why",
		Long: `why shows, region by region, how many instances of a service there are, how many of
them a client is given and in which priority, and what keeps the others from it. In
mode gateway what is given of another region are gateways.`,
		Example: `  stellmapctl federation why orders
  stellmapctl federation why orders --from-region cn-sh --failover local-only`,
		Args: oneService,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkSegment("SERVICE", args[0]); err != nil {
				return err
			}
			if err := checkSegment("--namespace", namespace); err != nil {
				return err
			}
			query := url.Values{}
			from.parameters(query.Set)
			var answer discovery
			r := request{doing: "federation why " + args[0], method: http.MethodGet, path: "/api/v2/namespaces/" + url.PathEscape(namespace) + "/services/" + url.PathEscape(args[0]) + "/discovery"}
			if len(query) > 0 {
				r.path += "?" + query.Encode()
			}
			if err := c.call(cmd.Context(), r, &answer); err != nil {
				return err
			}
			return c.show(answer.view())
		},
	}
	namespaceFlag(cmd.Flags(), &namespace)
	from.flags(cmd, strings.Join(failoverModes, ", ")+", in place of what the policy says", failoverModes)
	return cmd
}

func (d *discovery) view() view {
	v := view{whole: d, columns: []column{{"REGION", false}, {"AGE", false}, {"INSTANCES", false}, {"GIVEN", false}, {"PRIORITY", false}, {"WHY", false}}}
	for _, r := range d.Regions {
		v.items, v.names = append(v.items, r), append(v.names, r.Region)
		v.rows = append(v.rows, []string{r.Region, r.age(), fmt.Sprint(r.Instances), fmt.Sprint(r.Given), r.priority(), r.why()})
	}
	v.notes = append(regionNotes(d.Regions), fmt.Sprintf("%s; other regions are told of %s of the instances that are registered here", givenNote(d.Mode, d.FromRegion, d.FromZone), d.Exported))
	return v
}

func (r *discoveredRegion) age() string {
	if r.AgeMs == nil {
		return "-"
	}
	return age(time.Duration(*r.AgeMs) * time.Millisecond)
}

func (r *discoveredRegion) priority() string {
	if len(r.Priorities) == 0 {
		return "-"
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(r.Priorities), " ", ","), "[]")
}

func (r *discoveredRegion) why() string {
	var codes []string
	for _, why := range r.Why {
		codes = append(codes, why.Code)
	}
	if codes == nil {
		return "-"
	}
	return strings.Join(codes, ",")
}
