package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func (c *ctl) federationCommand() *cobra.Command {
	federation := c.group(&cobra.Command{
		Use:   "federation",
		Short: "The copies that this region keeps of others",
		Long: `federation shows how old the copies of other regions are and what is in them, and
stops, renews and forgets them. What changes them asks for the admin token.`,
		Example: `  stellmapctl federation status
  stellmapctl federation why orders
  stellmapctl federation pause cn-sh`,
	})
	federation.AddCommand(c.federationStatusCommand(), c.federationWhyCommand(),
		c.federationControl("pause", "Take nothing in from a region any more", "pause keeps what there is of a region, which ages, whoever leads.", "takes nothing in any more"),
		c.federationControl("resume", "Go on with a region that was paused", "resume goes on from where the copy is.", "is followed"),
		c.federationControl("resync", "Be told all there is anew", "resync has a region tell all there is. What is there stays until the end.", "is told anew"),
		c.federationControl("confirm", "Let go of what the last full sync did not tell",
			"confirm says that a region has really lost what its last full sync did not tell,\nwhich was kept because it is much.", "has nothing held any more"),
		c.federationControl("forget", "Remove all that a region has told",
			"forget removes all instances of a region from this one, and leaves the copy\npaused, since the region may still be in the settings.", "is forgotten and paused"))
	return federation
}

// A regionCopy is the copy of a region, as the server tells it.
type regionCopy struct {
	Region      string     `json:"region"`
	ClusterID   uint64     `json:"clusterId"`
	Configured  bool       `json:"configured"`
	Connected   bool       `json:"connected"`
	Paused      bool       `json:"paused"`
	AgeMs       *int64     `json:"ageMs,omitempty"`
	Incarnation string     `json:"incarnation"`
	Revision    uint64     `json:"revision"`
	FullSync    bool       `json:"fullSync"`
	Instances   int        `json:"instances"`
	Services    int        `json:"services"`
	Held        *heldSweep `json:"held,omitempty"`
	Leaving     int        `json:"leaving,omitempty"`
	Suspect     int        `json:"suspect,omitempty"`
	Withheld    int        `json:"withheld,omitempty"`
	Source      *struct {
		Address      string `json:"address"`
		Member       uint64 `json:"member,omitempty"`
		FeatureLevel uint32 `json:"featureLevel,omitempty"`
	} `json:"source,omitempty"`
	Problem *regionProblem `json:"problem,omitempty"`
}

type regionProblem struct {
	Code  string `json:"code"`
	Text  string `json:"text"`
	Since string `json:"since,omitempty"`
}

type heldSweep struct {
	Since     string `json:"since"`
	Until     string `json:"until"`
	Instances int    `json:"instances"`
	Of        int    `json:"of"`
}

// regionList is the answer of /api/v2/federation.
type regionList struct {
	Region     string `json:"region"`
	FollowedBy *struct {
		Member uint64 `json:"member"`
		Error  string `json:"error,omitempty"`
	} `json:"followedBy,omitempty"`
	Regions []regionCopy `json:"regions"`
}

func (c *ctl) federationStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "How old the copies are, and what is in them",
		Long: `status shows the copies of other regions as the asked member has them. AGE is how
long ago it was that all of the region's commits were known to be in the copy, and
PROBLEM what keeps the leader, which follows the regions for all members, from that.`,
		Example: `  stellmapctl federation status
  stellmapctl federation status -o json | jq '.regions[] | select(.connected | not)'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list regionList
			err := c.call(cmd.Context(), request{doing: "federation status", method: http.MethodGet, path: "/api/v2/federation"}, &list)
			if err != nil {
				return err
			}
			return c.show(c.regionView(&list))
		},
	}
}

func (c *ctl) regionView(list *regionList) view {
	v := view{whole: list, columns: []column{{"REGION", false}, {"CLUSTER", false}, {"STATE", false}, {"AGE", false}, {"REVISION", false}, {"INSTANCES", false}, {"SERVICES", false}, {"PROBLEM", false}, {"SOURCE", true}, {"LEVEL", true}}}
	for _, r := range list.Regions {
		v.items, v.names = append(v.items, r), append(v.names, r.Region)
		v.rows = append(v.rows, []string{r.Region, fmt.Sprint(r.ClusterID), r.state(), r.age(), fmt.Sprint(r.Revision), fmt.Sprint(r.Instances), fmt.Sprint(r.Services), r.problem(), r.source(), r.level()})
		if p := r.Problem; p != nil {
			v.notes = append(v.notes, fmt.Sprintf("%s: %s", r.Region, p.Text))
		}
		if r.Leaving > 0 {
			v.notes = append(v.notes, fmt.Sprintf("%s: %d instances are on their way out, as was wanted", r.Region, r.Leaving))
		}
		if r.Suspect+r.Withheld > 0 {
			v.notes = append(v.notes, fmt.Sprintf("%s: the copy is too old for the policies of some services: %d instances are suspect and %d are not used, until it is young again", r.Region, r.Suspect, r.Withheld))
		}
		if h := r.Held; h != nil {
			v.notes = append(v.notes, fmt.Sprintf("%s: %d of %d instances were not told in the last full sync and are kept for another %s; stellmapctl federation confirm %s lets them go",
				r.Region, h.Instances, h.Of, c.timeTo(h.Until), r.Region))
		}
	}
	if len(list.Regions) == 0 {
		v.notes = []string{"no other region is followed: [[federation.regions]] of the settings names them"}
	}
	switch by := list.FollowedBy; {
	case by == nil:
	case by.Member == 0:
		v.notes = append(v.notes, "nothing is followed while this cluster has no leader")
	case by.Error != "":
		v.notes = append(v.notes, fmt.Sprintf("node %d, which leads, does not say how regions are followed: %s", by.Member, by.Error))
	}
	return v
}

func (r *regionCopy) problem() string {
	if r.Problem == nil {
		return "-"
	}
	return r.Problem.Code
}

func (r *regionCopy) source() string {
	switch {
	case r.Source == nil:
		return "-"
	case r.Source.Member == 0:
		return r.Source.Address
	}
	return fmt.Sprintf("%s (node %d)", r.Source.Address, r.Source.Member)
}

func (r *regionCopy) level() string {
	if r.Source == nil || r.Source.FeatureLevel == 0 {
		return "-"
	}
	return fmt.Sprint(r.Source.FeatureLevel)
}

func (r *regionCopy) state() string {
	switch {
	case r.Paused:
		return "paused"
	case !r.Configured:
		return "not followed"
	case r.FullSync:
		return "full sync"
	case r.Connected:
		return "connected"
	}
	return "cut off"
}

func (r *regionCopy) age() string {
	if r.AgeMs == nil {
		return "-"
	}
	return age(time.Duration(*r.AgeMs) * time.Millisecond)
}

// federationControl is a command that does something to the copy of a region.
func (c *ctl) federationControl(action, short, long, done string) *cobra.Command {
	var cluster uint64
	cmd := &cobra.Command{
		Use:     action + " REGION",
		Short:   short,
		Long:    long,
		Example: fmt.Sprintf("  stellmapctl federation %s cn-sh", action),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("%s wants one region", nameOf(cmd))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.controlRegion(cmd.Context(), action, args[0], cluster, done)
		},
	}
	cmd.Flags().Uint64Var(&cluster, "cluster", 0, "the cluster that is meant, where the region has had several")
	return cmd
}

func (c *ctl) controlRegion(ctx context.Context, action, region string, cluster uint64, done string) error {
	var a struct {
		Region    string `json:"region"`
		ClusterID uint64 `json:"clusterId"`
		Changed   bool   `json:"changed"`
		Revision  uint64 `json:"revision"`
		Leaving   int    `json:"leaving,omitempty"`
	}
	body := struct {
		Region    string `json:"region"`
		ClusterID uint64 `json:"clusterId"`
	}{region, cluster}
	doing := "federation " + action + " " + region
	err := c.adminCall(ctx, request{doing: doing, method: http.MethodPost, path: "/admin/v1/federation/" + action, body: body}, &a)
	if err != nil {
		return err
	}
	if !a.Changed {
		done += " already"
	}
	if a.Leaving > 0 {
		done += fmt.Sprintf(": %d instances are left, and go by and by", a.Leaving)
	}
	return c.show(view{whole: a, names: []string{region}, line: fmt.Sprintf("region %s, cluster %d, %s", a.Region, a.ClusterID, done)})
}
