package main

import (
	"github.com/spf13/cobra"

	"github.com/stellmap/stellmap/internal/version"
)

func (c *ctl) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long:  `version prints the version of this program. It asks no server.`,
		Example: `  stellmapctl version
  stellmapctl version -o name`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			return c.show(view{
				whole: map[string]string{"version": version.Number},
				names: []string{version.Number},
				line:  "stellmapctl " + version.Number,
			})
		},
	}
}
