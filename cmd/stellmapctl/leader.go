package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (c *ctl) leaderCommand() *cobra.Command {
	show := func(cmd *cobra.Command, _ []string) error { return c.leader(cmd.Context()) }
	leader := &cobra.Command{
		Use:   "leader",
		Short: "Who leads, and handing the leadership over",
		Long: `leader shows who leads the region, as the asked member knows, and hands the
leadership to another voter. It exits with 5 while no leader is known.`,
		Example: `  stellmapctl leader
  stellmapctl leader transfer
  stellmapctl leader transfer 3`,
		Args: noArguments,
		RunE: show,
	}
	leader.AddCommand(&cobra.Command{
		Use:   "show",
		Short: "Who leads",
		Long: `show prints the leader, its term and its addresses. It exits with 5 while no
leader is known.`,
		Example: `  stellmapctl leader show
  stellmapctl leader show -o json | jq -r .http`,
		Args: noArguments,
		RunE: show,
	}, c.leaderTransferCommand())
	return leader
}

// leading is what leader shows.
type leading struct {
	Term uint64 `json:"term"`
	member
}

func (c *ctl) leader(ctx context.Context) error {
	list, err := c.members(ctx, "leader show")
	if err != nil {
		return err
	}
	for _, m := range list.Members {
		if m.ID == list.LeaderID {
			return c.show(view{whole: leading{list.Term, m}, names: []string{fmt.Sprint(m.ID)},
				line: fmt.Sprintf("node %d leads   term %d   http %s   admin %s", m.ID, list.Term, m.HTTP, m.Admin)})
		}
	}
	return &failure{doing: "leader show", code: "no_leader", exit: exitUnreachable, why: fmt.Sprintf("member %d, which was asked, knows no leader", list.LocalNodeID),
		next: "try again, an election takes about a second; stellmapctl status shows who is ready"}
}

func (c *ctl) leaderTransferCommand() *cobra.Command {
	return withNodeID(&cobra.Command{
		Use:   "transfer [ID]",
		Short: "Hand the leadership to another voter",
		Long: `transfer hands the leadership to a voter, or, without an id, to whoever is
nearest. Writes wait for a moment meanwhile. One that is not heard, or lacks too
much, is refused with exit code 6. A leader that is stopped cleanly does this by
itself.`,
		Example: `  stellmapctl leader transfer 3
  stellmapctl leader transfer`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			body := struct {
				TargetNodeID uint64 `json:"targetNodeId"`
			}{}
			doing := "leader transfer"
			if len(args) > 0 || cmd.Flags().Changed("node-id") {
				var err error
				if body.TargetNodeID, err = nodeID(cmd, args); err != nil {
					return err
				}
				doing = fmt.Sprintf("leader transfer %d", body.TargetNodeID)
			}
			a, err := c.askForChange(cmd.Context(), doing, "leader/transfer", body)
			if err != nil {
				return err
			}
			return c.show(a.said(fmt.Sprintf("node %s leads", idOrNone(a.LeaderID))))
		},
	})
}
