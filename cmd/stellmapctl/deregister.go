package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

func (c *ctl) deregisterCommand() *cobra.Command {
	var ref instanceRef
	var by holder
	cmd := &cobra.Command{
		Use:   "deregister SERVICE --id ID",
		Short: "Take an instance out of the registry",
		Long: `deregister takes an instance out of the registry at once; proxies stop sending
to it. The service stays, even without instances. An instance that is not there
is exit code 3. One that was registered with a lease token is deregistered by who
presents it, or by an operator with --force.`,
		Example: `  stellmapctl deregister orders --id orders-1
  stellmapctl deregister orders --id orders-1 --lease-token EXAMPLE-ONLY-7QX2F4M6
  stellmapctl deregister orders --id 10.0.0.1:8080 -n prod --force --token "$(cat stellmap-data/admin.token)"`,
		Args: oneService,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref.service = args[0]
			if err := ref.check(); err != nil {
				return err
			}
			return c.deregister(cmd.Context(), ref, by)
		},
	}
	namespaceFlag(cmd.Flags(), &ref.namespace)
	cmd.Flags().StringVar(&ref.id, "id", "", "the instance's id")
	holderFlags(cmd.Flags(), &by)
	return cmd
}

// check refuses a reference that makes no path. All else is the server's to say.
func (r instanceRef) check() error {
	for _, part := range []struct{ flag, text string }{{"SERVICE", r.service}, {"--id", r.id}, {"--namespace", r.namespace}} {
		if err := checkSegment(part.flag, part.text); err != nil {
			return err
		}
	}
	return nil
}

func (c *ctl) deregister(ctx context.Context, ref instanceRef, by holder) error {
	answer, err := c.delete(ctx, ref, by)
	if err != nil {
		return err
	}
	if answer.Deleted != nil && !*answer.Deleted {
		return &failure{doing: "deregister " + ref.String(), code: "not_found", exit: exitNotFound,
			why: fmt.Sprintf("no such instance at revision %d; nothing was changed", answer.Revision), next: "stellmapctl get instances -n " + ref.namespace + " lists what is there"}
	}
	return c.show(deregistered(ref, answer))
}

func (c *ctl) delete(ctx context.Context, ref instanceRef, by holder) (written, error) {
	var answer written
	err := c.call(ctx, request{doing: "deregister " + ref.String(), method: http.MethodDelete, path: ref.path(), by: by}, &answer)
	return answer, err
}

func deregistered(ref instanceRef, answer written) view {
	return view{
		whole: answer,
		names: []string{ref.short()},
		line:  fmt.Sprintf("deregistered %s   rev %d", ref.short(), answer.Revision),
	}
}
