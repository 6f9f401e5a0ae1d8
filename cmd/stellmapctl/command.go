package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// The defaults of the global flags, and the variables that stand in for two of them.
const (
	serverDefault  = "http://127.0.0.1:8080"
	serverVariable = "STELLMAP_SERVER"
	tokenVariable  = "STELLMAP_TOKEN"
	timeoutDefault = 5 * time.Second // above the server's own limit of a request, so that its answer is the one that is told
)

// ctl is one invocation of stellmapctl.
type ctl struct {
	lookup         func(string) (string, bool) // the environment
	stdout, stderr io.Writer
	transport      http.RoundTripper
	secure         func(*tls.Config) // has the transport use it
	now            func() time.Time
	after          func(time.Duration) <-chan time.Time
	newToken       func() string // a lease token that nobody can guess

	saidOff  bool // that authentication is off
	accepted bool // cobra has taken the command line: what fails from here on is no mistake in it

	// What the global flags say, or their variables.
	server, serverFrom string // serverFrom is how to name it in an error
	token              string
	proof              proof
	output             format
	noHeaders          bool
	timeout            time.Duration
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run is the whole process but for signals and os.Exit.
func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	transport := &http.Transport{TLSHandshakeTimeout: timeoutDefault, MaxIdleConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	c := &ctl{lookup: lookup, stdout: stdout, stderr: stderr, transport: transport, secure: func(t *tls.Config) { transport.TLSClientConfig = t }, now: time.Now, after: time.After, newToken: rand.Text}
	return c.run(ctx, args)
}

func (c *ctl) run(ctx context.Context, args []string) int {
	root := c.command()
	root.SetArgs(args)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	ran, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	f := asFailure(err, c.accepted)
	if f.exit == exitUsage && f.next == "" {
		f.next = ran.CommandPath() + " --help lists commands and flags"
	}
	if !c.accepted { // the flags may not all have been read
		c.output = wantedFormat(args)
	}
	if err := f.print(c.stderr, c.output); err != nil {
		return exitFailed // nobody is left to be told
	}
	return f.exit
}

func (c *ctl) command() *cobra.Command {
	root := c.group(&cobra.Command{
		Use:   "stellmapctl",
		Short: "Look at and change what a StellMap region knows",
		Long: `stellmapctl looks at and changes what a StellMap region knows. It asks one
member, any of them, over HTTP: --server, or STELLMAP_SERVER.

Exit codes: 0 ok, 1 failed check or other failure, 2 usage, 3 not found,
4 denied, 5 unreachable or no quorum, 6 conflict, 7 time-out.`,
		Example: `  stellmapctl status                                                    who leads, who is ready
  stellmapctl get services -A                                           all services of all namespaces
  stellmapctl get instances orders -o wide                              who offers one of them, and since when
  stellmapctl describe service orders                                   in what state they are, and why
  stellmapctl drain orders/orders-1 --wait                              no new calls go to it any more
  stellmapctl register orders --id orders-1 --addr 127.0.0.1:9001 --keep
  stellmapctl bootstrap envoy --node web-1 > envoy.yaml
  stellmapctl member replace --node-id 2 --new-node-id 4                a dead member
  stellmapctl snapshot save orders.backup                               all of it, into one file`,
	})
	root.SilenceUsage, root.SilenceErrors = true, true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentPreRunE = c.settle
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	flags := root.PersistentFlags()
	flags.StringVar(&c.server, "server", serverDefault, "the member to ask; also "+serverVariable)
	flags.StringVar(&c.token, "token", "", "what proves who you are; also "+tokenVariable+", which no list of processes shows")
	c.proof.flags(flags)
	flags.DurationVar(&c.timeout, "timeout", timeoutDefault, "how long to wait for an answer")
	flags.StringVarP((*string)(&c.output), "output", "o", string(formatTable), oneOf(formats))
	flags.BoolVar(&c.noHeaders, "no-headers", false, "tables with rows only: no titles, no revision")
	if err := root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(texts(formats), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(fmt.Sprintf("stellmapctl: completion of --output: %v", err))
	}
	root.AddCommand(c.statusCommand(), c.getCommand(), c.watchCommand(), c.describeCommand(), c.registerCommand(), c.deregisterCommand(), c.drainCommand(), c.undrainCommand(),
		c.overrideCommand(), c.reportCommand(), c.proxyCommand(), c.applyCommand(), c.bootstrapCommand(),
		c.memberCommand(), c.leaderCommand(), c.federationCommand(), c.snapshotCommand(), c.debugCommand(), c.certCommand(), c.tokenCommand(), c.authCommand(), c.auditCommand(), c.versionCommand())
	return root
}

// group is a command that does nothing without another one behind it. The root
// alone tells what there is.
func (c *ctl) group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 && !cmd.HasParent() {
			return nil
		}
		if len(args) == 0 {
			return usagef("%s what? %s", nameOf(cmd), strings.Join(below(cmd), " or "))
		}
		hint := ""
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = fmt.Sprintf(" (did you mean %s?)", strings.Join(near, " or "))
		}
		return usagef("unknown command %q%s", strings.TrimSpace(nameOf(cmd)+" "+args[0]), hint)
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

// nameOf is a command's name without the program's, which stands before it already.
func nameOf(cmd *cobra.Command) string {
	_, name, _ := strings.Cut(cmd.CommandPath(), " ")
	return name
}

// below names the commands of a group.
func below(cmd *cobra.Command) []string {
	var out []string
	for _, sub := range cmd.Commands() {
		out = append(out, sub.Name())
	}
	return out
}

// settle completes and checks the global flags, once the command line is taken.
func (c *ctl) settle(cmd *cobra.Command, _ []string) error {
	flags := cmd.Flags()
	c.serverFrom = "--server"
	if value, ok := c.lookup(serverVariable); ok && value != "" && !flags.Changed("server") {
		c.server, c.serverFrom = value, serverVariable
	}
	if value, ok := c.lookup(tokenVariable); ok && !flags.Changed("token") {
		c.token = value
	}
	c.token = strings.TrimSpace(c.token) // a file's last line ends with a line feed
	c.accepted = true
	if !slices.Contains(formats, c.output) {
		given := c.output
		c.output = formatTable
		return usagef("--output: %q is none of %s", given, oneOf(formats))
	}
	c.proof.settle(flags, c.lookup)
	secure, err := c.proof.config()
	if err != nil {
		return err
	}
	if secure != nil {
		c.secure(secure)
	}
	if c.timeout <= 0 {
		return usagef("--timeout: %v is no time to wait, such as 5s", c.timeout)
	}
	return nil
}

// noArguments and the two below are cobra's checks with our words and exit code.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no argument, got %q", nameOf(cmd), args[0])
	}
	return nil
}

func oneService(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("%s wants the name of a service", nameOf(cmd))
	}
	return atMostOneService(cmd, args)
}

func atMostOneService(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("%s takes one service, got %q too", nameOf(cmd), args[1])
	}
	return nil
}
