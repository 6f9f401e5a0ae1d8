package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// A standpoint is where a client is, and how it is to be told of regions.
type standpoint struct{ failover, region, zone string }

var failoverModes = []string{"local-only", "local-first", "remote-fallback", "merged", "gateway"}

// flags are those of both commands that say what a client is given.
func (s *standpoint) flags(cmd *cobra.Command, help string, modes []string) {
	cmd.Flags().StringVar(&s.failover, "failover", "", help)
	cmd.Flags().StringVar(&s.region, "from-region", "", "the region of the client (default the server's)")
	cmd.Flags().StringVar(&s.zone, "from-zone", "", "the zone of the client")
	if err := cmd.RegisterFlagCompletionFunc("failover", cobra.FixedCompletions(modes, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(fmt.Sprintf("stellmapctl: completion of --failover: %v", err))
	}
}

// parameters are those of the API.
func (s *standpoint) parameters(set func(name, value string)) {
	for _, one := range [][2]string{{"failover", s.failover}, {"fromRegion", s.region}, {"fromZone", s.zone}} {
		if one[1] != "" {
			set(one[0], one[1])
		}
	}
}

// check finds what does not go with get instances --failover.
func (s *standpoint) check(of *selection) error {
	switch {
	case s.failover == "" && s.region != "":
		return usagef("--from-region: is for --failover")
	case s.failover == "" && s.zone != "":
		return usagef("--from-zone: is for --failover")
	case s.failover != "" && (of.all || len(of.services) != 1):
		return usagef("--failover: is for one service, and not for -A: policies differ")
	case s.failover != "" && of.count:
		return usagef("--failover and --count: give one of them; regions are told with how many each has and gives")
	}
	return nil
}

// givenList is what a client is given of a service, with whole instances.
type givenList struct {
	Revision   uint64             `json:"revision"`
	Failover   string             `json:"failover"`
	FromRegion string             `json:"fromRegion"`
	FromZone   string             `json:"fromZone,omitempty"`
	More       bool               `json:"more,omitempty"`
	Regions    []discoveredRegion `json:"regions"`
	Instances  []givenInstance    `json:"instances"`
}

type givenInstance struct {
	instance
	Priority    int      `json:"priority"`
	Authorities []string `json:"authorities,omitempty"`
}

func (c *ctl) getGiven(ctx context.Context, s *selection, from *standpoint) error {
	parameters := s.parameters("instances")
	from.parameters(parameters.Set)
	if s.limit > 0 {
		parameters.Set("limit", strconv.FormatUint(uint64(s.limit), 10))
	}
	list := givenList{Instances: []givenInstance{}}
	r := request{doing: fmt.Sprintf("get instances of %s", s.where()), method: http.MethodGet, path: s.path("instances") + "?" + parameters.Encode()}
	if err := c.call(ctx, r, &list); err != nil {
		return err
	}
	return c.show(list.view(c.output == formatWide))
}

func (l *givenList) view(wide bool) view {
	v := view{
		whole: l, items: []any{}, foot: revisionLine(l.Revision),
		columns: []column{{"SERVICE", false}, {"ID", false}, {"PRIORITY", false}, {"STATUS", false}, {"ADDRESS", false}, {"REGION", false}, {"ZONE", false}, {"AUTHORITY", false}},
	}
	if l.More {
		v.foot += "; there are more, which are called later"
	}
	for _, i := range l.Instances {
		v.items, v.names = append(v.items, i), append(v.names, i.Service+"/"+i.InstanceID)
		v.rows = append(v.rows, []string{i.Service, i.InstanceID, fmt.Sprint(i.Priority), i.Status, addresses(i.Endpoints, wide), i.Region, i.Zone, strings.Join(i.Authorities, ",")})
	}
	v.notes = append(regionNotes(l.Regions), givenNote(l.Failover, l.FromRegion, l.FromZone))
	return v
}

// regionNotes say of each region why it gives less than it has.
func regionNotes(of []discoveredRegion) []string {
	var out []string
	for _, r := range of {
		for _, why := range r.Why {
			out = append(out, fmt.Sprintf("%s: %s", r.Region, why.Text))
		}
	}
	return out
}

func givenNote(mode, region, zone string) string {
	from := "region " + region
	if zone != "" {
		from += ", zone " + zone
	}
	return fmt.Sprintf("mode %s, for a client in %s", mode, from)
}
