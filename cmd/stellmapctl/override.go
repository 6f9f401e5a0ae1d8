package main

import (
	"net/http"

	"github.com/spf13/cobra"
)

func (c *ctl) overrideCommand() *cobra.Command {
	override := c.group(&cobra.Command{
		Use:   "override",
		Short: "An operator's word on an instance",
		Long: `override sets the state of an instance by hand, whatever its checks and its
callers say, and takes that back. It lasts until it is cleared, across
registrations and the removal of the instance.`,
		Example: `  stellmapctl override set orders/orders-1 disabled --reason 'its disk is being replaced'
  stellmapctl override clear orders/orders-1`,
	})
	override.AddCommand(c.overrideSetCommand(), c.overrideClearCommand())
	return override
}

func (c *ctl) overrideSetCommand() *cobra.Command {
	var ref instanceRef
	var reason string
	cmd := &cobra.Command{
		Use:   "set SERVICE/ID STATUS",
		Short: "Say what state an instance is in",
		Long: `set says that an instance is passing, warning, critical or disabled. One that is
disabled is not told to proxies at all, whatever else holds.`,
		Example: `  stellmapctl override set orders/orders-1 disabled --reason 'its disk is being replaced'
  stellmapctl override set orders/orders-1 passing -n prod`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("%s wants an instance and its status: SERVICE/ID and passing, warning, critical or disabled", nameOf(cmd))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := ref.read(args[0]); err != nil {
				return err
			}
			body := struct {
				Status string `json:"status"`
				Reason string `json:"reason"`
			}{args[1], reason}
			r := request{doing: "override set " + ref.String(), method: http.MethodPost, path: ref.path() + "/override", body: body}
			return c.say(cmd.Context(), ref, r, "is "+args[1]+" by an operator's word", "was "+args[1]+" by an operator's word already")
		},
	}
	instanceFlags(cmd, &ref)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for others to read")
	return cmd
}

func (c *ctl) overrideClearCommand() *cobra.Command {
	var ref instanceRef
	cmd := &cobra.Command{
		Use:   "clear SERVICE/ID",
		Short: "Take an operator's word back",
		Long: `clear takes an override back, be the instance there or not. It is no error that
there is none.`,
		Example: `  stellmapctl override clear orders/orders-1`,
		Args:    oneInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := ref.read(args[0]); err != nil {
				return err
			}
			r := request{doing: "override clear " + ref.String(), method: http.MethodDelete, path: ref.path() + "/override"}
			return c.say(cmd.Context(), ref, r, "is what the others say of it", "had no override")
		},
	}
	instanceFlags(cmd, &ref)
	return cmd
}
