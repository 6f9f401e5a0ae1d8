package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// reportAnswer is what the server says of a report.
type reportAnswer struct {
	written
	Reporters     int    `json:"reporters"`
	Effect        string `json:"effect"`
	Quorum        int    `json:"quorum"`
	WindowSeconds int64  `json:"windowSeconds"`
}

// reports are what callers have said of the instances of a service.
type reports struct {
	Effect        string             `json:"effect"`
	Quorum        int                `json:"quorum"`
	WindowSeconds int64              `json:"windowSeconds"`
	Instances     []reportedInstance `json:"instances"`
}

type reportedInstance struct {
	InstanceID string       `json:"instanceId"`
	Reporters  int          `json:"reporters"`
	Reason     string       `json:"reason,omitempty"`
	Reports    []reportedBy `json:"reports"`
}

type reportedBy struct {
	Reporter string `json:"reporter,omitempty"`
	From     string `json:"from"`
	Since    string `json:"since"`
	Last     string `json:"last"`
	Times    int    `json:"times"`
}

func (c *ctl) reportCommand() *cobra.Command {
	var ref instanceRef
	body := struct {
		Reporter string `json:"reporter"`
		Outcome  string `json:"outcome"`
		Reason   string `json:"reason,omitempty"`
	}{Outcome: "failure"}
	success := false
	cmd := &cobra.Command{
		Use:   "report SERVICE/ID",
		Short: "Say that an instance cannot be reached, as one of those who call it",
		Long: `report tells the cluster that an instance was called and did not work, or with
--success that it works again. It is one voice: when a quorum of reporters says so,
counted by name and by address, the instance is warning or critical as the policy of
its service has it, for a while. Without a policy reports are counted and shown.`,
		Example: `  stellmapctl report orders/orders-1 --reporter web-1 --reason 'connection refused'
  stellmapctl report orders/orders-1 --reporter web-1 --success
  stellmapctl describe service orders                                  who has reported what`,
		Args: oneInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := ref.read(args[0]); err != nil {
				return err
			}
			if success && body.Reason != "" {
				return usagef("--reason: says why it failed, and --success that it works: leave one of the two out")
			}
			if success {
				body.Outcome = "success"
			}
			var answer reportAnswer
			r := request{doing: "report " + ref.String(), method: http.MethodPost, path: ref.path() + "/report", body: body}
			if err := c.call(cmd.Context(), r, &answer); err != nil {
				return err
			}
			return c.show(view{whole: answer, names: []string{ref.short()}, line: answer.line(ref.short())})
		},
	}
	instanceFlags(cmd, &ref)
	cmd.Flags().StringVar(&body.Reporter, "reporter", "", "who says so; without it, the address that this is asked from")
	cmd.Flags().StringVar(&body.Reason, "reason", "", "why it failed, for others to read")
	cmd.Flags().BoolVar(&success, "success", false, "it works again: take back what this reporter has said")
	return cmd
}

func (a *reportAnswer) line(name string) string {
	line := fmt.Sprintf("%s has %s within %ds", name, quantity(a.Reporters, "reporter", "reporters"), a.WindowSeconds)
	if a.Effect == "none" {
		return line + ", which has no effect: its service has no policy for reports"
	}
	return line + fmt.Sprintf("; %d make it %s", a.Quorum, a.Effect)
}

// reported is what callers have said of a service's instances, of one alone where
// an id is given. The leader has to be asked; that it cannot be told is no reason to tell nothing.
func (c *ctl) reported(ctx context.Context, l *looking) (*reports, error) {
	if l.stale {
		return nil, nil
	}
	var all reports
	path := namespacePath(l.ref.namespace) + "/services/" + url.PathEscape(l.ref.service) + "/reports"
	if err := c.call(ctx, request{doing: "look who has reported " + l.ref.namespace + "/" + l.ref.service, method: http.MethodGet, path: path}, &all); err != nil {
		return nil, printLine(c.stderr, "what callers have reported is not known: %v", err)
	}
	if l.ref.id == "" {
		return &all, nil
	}
	for _, one := range all.Instances {
		if one.InstanceID == l.ref.id {
			all.Instances = []reportedInstance{one}
			return &all, nil
		}
	}
	return nil, nil
}

// reportLines say who has reported which instance.
func (c *ctl) reportLines(r *reports) []view {
	if r == nil {
		return nil
	}
	var lines []view
	for _, one := range r.Instances {
		line := fmt.Sprintf("%s is reported by %d of %d within %ds", one.InstanceID, one.Reporters, r.Quorum, r.WindowSeconds)
		if r.Effect == "none" {
			line = fmt.Sprintf("%s is reported by %d within %ds, without effect", one.InstanceID, one.Reporters, r.WindowSeconds)
		}
		if one.Reason != "" {
			line += ", last for: " + one.Reason
		}
		var who []string
		for _, by := range one.Reports {
			who = append(who, strings.TrimSpace(by.Reporter+" at "+by.From)+" "+c.ageOf(by.Last)+" ago")
		}
		lines = append(lines, view{line: line + " (" + strings.Join(who, "; ") + ")"})
	}
	return lines
}
