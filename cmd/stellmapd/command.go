package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/stellmap/stellmap/internal/version"
)

// Exit codes of stellmapd.
const (
	exitOK     = 0
	exitFailed = 1 // it ran and could not go on; stderr says why
	exitUsage  = 2 // flags or configuration; nothing was started
)

// daemon is one invocation of stellmapd.
type daemon struct {
	lookup         func(string) (string, bool) // the environment
	stdout, stderr io.Writer
	configPath     string
	checkOnly      bool
}

// usageError is a mistake on the command line.
type usageError struct{ error }

// run is the whole process but for signals and os.Exit.
func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	d := &daemon{lookup: lookup, stdout: stdout, stderr: stderr}
	cmd := d.command()
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	var config *ConfigError
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &config):
		fmt.Fprintln(stderr, err)
		return exitUsage
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "stellmapd: %v\nstellmapd --help lists commands and flags.\n", err)
		return exitUsage
	default:
		fmt.Fprintf(stderr, "stellmapd: %v\n", err)
		return exitFailed
	}
}

func (d *daemon) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "stellmapd",
		Short: "A member of a StellMap region: service registry and xDS control plane",
		Long: `stellmapd is a member of a StellMap region: service registry and xDS control
plane in one process. Without flags it is one safe node on loopback with its
data in ./stellmap-data.

Settings come from the file given by --config, from variables and from flags;
a variable beats the file, a flag beats both. The variable of --http-addr, the
key http_addr of [server], is STELLMAP_SERVER_HTTP_ADDR.`,
		Example: `  stellmapd                            one node, data in ./stellmap-data
  stellmapd dev                        the same, data in a temporary folder
  stellmapd dev --regions a,b          two regions in one process, each with a copy of the other
  stellmapd --config stellmapd.toml    a member of a cluster
  stellmapd --config stellmapd.toml --check
  stellmapd restore --from orders.backup --data-dir ./stellmap-data`,
		Args:          noArguments,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return d.serve(cmd, false) },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	addFlags(root.PersistentFlags())
	root.PersistentFlags().StringVar(&d.configPath, "config", "", "read settings from this TOML file")
	root.Flags().BoolVar(&d.checkOnly, "check", false, "check the settings, start nothing")
	root.AddCommand(d.devCommand(), d.restoreCommand(), d.recoverCommand(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(d.stdout, "stellmapd", version.Number)
			return err
		},
	})
	return root
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument, got %q", cmd.CommandPath(), args[0])}
	}
	return nil
}

// serve runs one node until the context ends or it cannot go on.
func (d *daemon) serve(cmd *cobra.Command, dev bool) error {
	read := d.settings
	if dev {
		read = d.devSettings
	}
	c, err := read(cmd)
	if err != nil {
		return err
	}
	if d.checkOnly {
		_, err := fmt.Fprintln(d.stdout, "the settings are good")
		return err
	}
	o := nodeOptions{config: c, dev: dev, logger: newLogger(c, d.stderr), stdout: d.stdout}
	if !dev {
		return runNode(cmd.Context(), o)
	}
	return d.withData(cmd, c.Node.DataDir, func(dir string, temporary bool) error {
		o.config.Node.DataDir, o.temporary = dir, temporary
		return runNode(cmd.Context(), o)
	})
}

// withData gives dev its data folder: the one that was named, or a temporary one, which
// goes with a clean stop.
func (d *daemon) withData(cmd *cobra.Command, named string, run func(dir string, temporary bool) error) error {
	if d.dataDirGiven(cmd) {
		return run(named, false)
	}
	dir, err := os.MkdirTemp("", "stellmap-dev-")
	if err != nil {
		return fmt.Errorf("make a folder for dev's data: %w", err)
	}
	if err := run(dir, true); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove dev's data: %w", err)
	}
	return nil
}

// settings are those of the command line, the environment and the file.
func (d *daemon) settings(cmd *cobra.Command) (Config, error) {
	c, err := loadConfig(d.configPath, cmd.Flags(), d.lookup)
	var config *ConfigError
	if err != nil && !errors.As(err, &config) {
		err = usageError{err}
	}
	return c, err
}

// dataDirGiven tells whether anybody named a data folder.
func (d *daemon) dataDirGiven(cmd *cobra.Command) bool {
	_, inEnvironment := d.lookup("STELLMAP_NODE_DATA_DIR")
	return inEnvironment || cmd.Flags().Changed("data-dir") || d.configPath != ""
}

// newLogger writes to w as [log] says.
func newLogger(c Config, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		panic(fmt.Sprintf("stellmapd: log level %q passed the check of settings: %v", c.Log.Level, err))
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
