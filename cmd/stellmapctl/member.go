package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (c *ctl) memberCommand() *cobra.Command {
	member := c.group(&cobra.Command{
		Use:   "member",
		Short: "Who the members are, and how others come and go",
		Long: `member shows the members of the region and changes who they are: a node enters
as a learner, which is sent everything and does not vote, is promoted when it
has caught up, and is removed for ever. Ids are never used twice.

The asked member, any of them, does it over its administration port, whose
address is in the list of members; --token, or STELLMAP_TOKEN, is what
admin.token in its data directory holds. Each change may be asked for again:
what is so already is done.`,
		Example: `  stellmapctl member list
  stellmapctl member promote 4 --wait 1m
  stellmapctl member remove 2
  stellmapctl member replace --node-id 2 --new-node-id 4`,
	})
	member.AddCommand(c.memberListCommand(), c.memberAddCommand(), c.memberPromoteCommand(), c.memberRemoveCommand(), c.memberReplaceCommand())
	return member
}

func (c *ctl) memberListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Who votes, who learns, and how far behind each is",
		Long: `list shows the members as the asked one knows them: who leads, who votes, who
learns, how many log entries each lacks in the leader's eyes, and whether the
leader hears it. BEHIND and HEARD are - while no leader can be asked. The first line
says how far a replacement is that is under way.`,
		Example: `  stellmapctl member list
  stellmapctl member list -o json | jq '.members[] | select(.learner)'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.members(cmd.Context(), "member list")
			if err != nil {
				return err
			}
			return c.show(list.view())
		},
	}
}

func (l memberList) view() view {
	v := view{
		whole: l,
		head:  fmt.Sprintf("cluster %d   region %s   leader %s   term %d", l.ClusterID, l.Region, idOrNone(l.LeaderID), l.Term),
		columns: []column{{"ID", false}, {"ROLE", false}, {"VOTER", false}, {"BEHIND", false}, {"HEARD", false}, {"HTTP", false}, {"GRPC", false}, {"ADMIN", false},
			{"XDS", true}},
		foot: revisionLine(l.Revision),
	}
	if r := l.Replacement; r != nil {
		v.head += fmt.Sprintf("   node %d takes the place of node %d: %s", r.NewNodeID, r.NodeID, r.Stage)
	}
	for _, m := range l.Members {
		v.items = append(v.items, m)
		v.names = append(v.names, fmt.Sprint(m.ID))
		v.rows = append(v.rows, []string{fmt.Sprint(m.ID), m.Role, yesNo(m.Voter), m.behind(), m.heard(), m.HTTP, m.GRPC, m.Admin, m.XDS})
	}
	return v
}

func idOrNone(id uint64) string {
	if id == 0 {
		return "none"
	}
	return fmt.Sprint(id)
}

func (m member) behind() string {
	if m.Behind == nil {
		return ""
	}
	return fmt.Sprint(*m.Behind)
}

func (m member) heard() string {
	if m.Heard == nil {
		return ""
	}
	return yesNo(*m.Heard)
}

// memberRequest is the body of all changes of the members.
type memberRequest struct {
	NodeID    uint64 `json:"nodeId"`
	NewNodeID uint64 `json:"newNodeId,omitempty"`
	Force     bool   `json:"force,omitempty"`
	HTTPAddr  string `json:"httpAddr,omitempty"`
	XDSAddr   string `json:"xdsAddr,omitempty"`
	GRPCAddr  string `json:"grpcAddr,omitempty"`
	AdminAddr string `json:"adminAddr,omitempty"`
}

// changed is what a change of the members is answered with.
type changed struct {
	Revision       uint64       `json:"revision"`
	LeaderID       uint64       `json:"leaderId"`
	Voters         []uint64     `json:"voters"`
	VotersOutgoing []uint64     `json:"votersOutgoing"`
	Learners       []uint64     `json:"learners"`
	Removed        []uint64     `json:"removed"`
	Replacement    *replacement `json:"replacement,omitempty"`
}

// said is a change that was made, in one line.
func (a changed) said(what string) view {
	line := fmt.Sprintf("%s   voters %s", what, ids(a.Voters))
	if len(a.Learners) > 0 {
		line += "   learners " + ids(a.Learners)
	}
	return view{whole: a, names: texts10(a.Voters), line: fmt.Sprintf("%s   leader %s   rev %d", line, idOrNone(a.LeaderID), a.Revision)}
}

func texts10(list []uint64) []string {
	out := make([]string, len(list))
	for i, id := range list {
		out[i] = strconv.FormatUint(id, 10)
	}
	return out
}

func ids(list []uint64) string { return strings.Join(texts10(list), ",") }

// nodeID is the one node that a command line names, as its argument or by --node-id.
func nodeID(cmd *cobra.Command, args []string) (uint64, error) {
	flag, err := cmd.Flags().GetUint64("node-id")
	switch {
	case err != nil:
		return 0, err
	case len(args) > 1:
		return 0, usagef("%s takes one node id, got %q too", nameOf(cmd), args[1])
	case len(args) == 1 && flag != 0:
		return 0, usagef("%s wants the node id once, as its argument or by --node-id", nameOf(cmd))
	case len(args) == 0 && flag == 0:
		return 0, usagef("%s wants a node id", nameOf(cmd))
	case len(args) == 0:
		return flag, nil
	}
	id, err := strconv.ParseUint(args[0], 10, 63)
	if err != nil || id == 0 {
		return 0, usagef("%s: %q is no node id: a whole number from 1 on", nameOf(cmd), args[0])
	}
	return id, nil
}

func withNodeID(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Uint64("node-id", 0, "the node id, in place of the argument")
	return cmd
}

func (c *ctl) memberAddCommand() *cobra.Command {
	var body memberRequest
	cmd := withNodeID(&cobra.Command{
		Use:   "add-learner ID --grpc HOST:PORT",
		Short: "Take a node in that does not ask for it itself",
		Long: `add-learner makes a node a learner before it runs. It is rarely needed: a node
that is started with [cluster] join is taken in by itself, and says where it is
reached. The addresses are what the others use until it does.`,
		Example: `  stellmapctl member add-learner 4 --grpc 10.0.0.4:19090 --http 10.0.0.4:8080 --admin 10.0.0.4:18080`,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if body.NodeID, err = nodeID(cmd, args); err != nil {
				return err
			}
			if body.GRPCAddr == "" {
				return usagef("--grpc: is missing, the address at which the other members reach node %d", body.NodeID)
			}
			return c.changeMembers(cmd.Context(), fmt.Sprintf("member add-learner %d", body.NodeID), "members/add-learner", body, fmt.Sprintf("node %d is a learner", body.NodeID))
		},
	})
	flags := cmd.Flags()
	flags.StringVar(&body.GRPCAddr, "grpc", "", "where the other members reach it")
	flags.StringVar(&body.HTTPAddr, "http", "", "where its HTTP port is")
	flags.StringVar(&body.XDSAddr, "xds", "", "where its xDS port is")
	flags.StringVar(&body.AdminAddr, "admin", "", "where its administration port is")
	return cmd
}

func (c *ctl) memberPromoteCommand() *cobra.Command {
	var wait time.Duration
	cmd := withNodeID(&cobra.Command{
		Use:   "promote ID",
		Short: "Let a learner vote that has caught up",
		Long: `promote makes a learner a voter. One that lacks too much is refused, with how
many entries that is, since a quorum that counts on it could not write: exit
code 6. --wait tries until it has caught up.`,
		Example: `  stellmapctl member promote 4
  stellmapctl member promote 4 --wait 5m`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := nodeID(cmd, args)
			if err != nil {
				return err
			}
			doing := fmt.Sprintf("member promote %d", id)
			return c.until(cmd.Context(), wait, func(err error) bool { return hasCode(err, "member_behind") || hasCode(err, "not_found") }, func(ctx context.Context) error {
				return c.changeMembers(ctx, doing, "members/promote", memberRequest{NodeID: id}, fmt.Sprintf("node %d votes", id))
			})
		},
	})
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait until it has joined and caught up")
	return cmd
}

func (c *ctl) memberRemoveCommand() *cobra.Command {
	var force bool
	cmd := withNodeID(&cobra.Command{
		Use:   "remove ID",
		Short: "Remove a member for ever",
		Long: `remove takes a member out, for ever: its id is never used again, and its process
ends and says why. A leader hands the leadership over first. What would leave no
quorum of voters that are heard is refused with exit code 6; --force does it
anyway, and then nothing can be written until enough of the others are back.`,
		Example: `  stellmapctl member remove 5
  stellmapctl member remove 5 --force`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := nodeID(cmd, args)
			if err != nil {
				return err
			}
			return c.changeMembers(cmd.Context(), fmt.Sprintf("member remove %d", id), "members/remove", memberRequest{NodeID: id, Force: force}, fmt.Sprintf("node %d is removed", id))
		},
	})
	cmd.Flags().BoolVar(&force, "force", false, "also when no quorum would be left: all writes stop until enough of the others are back")
	return cmd
}

func (c *ctl) memberReplaceCommand() *cobra.Command {
	var old, by uint64
	var wait time.Duration
	var abandon bool
	cmd := &cobra.Command{
		Use:   "replace --node-id N --new-node-id M",
		Short: "Let a new node take the place of another, dead or alive",
		Long: `replace has node M take the place of node N. It is written into the log, and
whoever leads carries it on: it waits until M has joined and caught up, hands
the leadership over if N leads, and changes both in one step, so that at no
moment fewer voters can be relied on. M is a node with an empty data directory
and an id that was never used, started with [cluster] join, before or after this
command. It waits for the end for as long as --wait says; should it be
interrupted, the replacement goes on, and the same command waits for it again.

--abandon gives up the one that is under way.`,
		Example: `  stellmapctl member replace --node-id 2 --new-node-id 4
  stellmapctl member replace --node-id 2 --new-node-id 4 --wait 0s
  stellmapctl member replace --abandon`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if abandon {
				return c.changeMembers(cmd.Context(), "member replace --abandon", "members/abandon", memberRequest{}, "no replacement is under way")
			}
			if old == 0 || by == 0 {
				return usagef("member replace wants --node-id, the node that goes, and --new-node-id, the one that takes its place")
			}
			return c.replace(cmd.Context(), old, by, wait)
		},
	}
	flags := cmd.Flags()
	flags.Uint64Var(&old, "node-id", 0, "the node that goes")
	flags.Uint64Var(&by, "new-node-id", 0, "the node that takes its place")
	flags.DurationVar(&wait, "wait", 5*time.Minute, "how long to wait for the end; 0s does not wait")
	flags.BoolVar(&abandon, "abandon", false, "give up the replacement that is under way")
	return cmd
}

// replace asks for a replacement, and waits for its end by asking again: what is
// so already is done.
func (c *ctl) replace(ctx context.Context, old, by uint64, wait time.Duration) error {
	doing := fmt.Sprintf("member replace --node-id %d --new-node-id %d", old, by)
	said := ""
	return c.until(ctx, wait, func(err error) bool { return hasCode(err, codeUnderWay) }, func(ctx context.Context) error {
		a, err := c.askForChange(ctx, doing, "members/replace", memberRequest{NodeID: old, NewNodeID: by})
		if err != nil {
			return err
		}
		if a.Replacement == nil {
			return c.show(a.said(fmt.Sprintf("node %d has taken the place of node %d", by, old)))
		}
		if wait == 0 {
			return c.show(a.said(fmt.Sprintf("node %d takes the place of node %d: %s", by, old, a.Replacement.Stage)))
		}
		if a.Replacement.Stage != said {
			said = a.Replacement.Stage
			if err := printLine(c.stderr, "%s", said); err != nil {
				return err
			}
		}
		return &failure{doing: doing, code: codeUnderWay, exit: exitTimeout, why: fmt.Sprintf("not at its end after %v: %s", wait, said),
			next: "it goes on without this command: the same one waits again, stellmapctl member list shows how far it is"}
	})
}

// codeUnderWay is of a change that takes longer than somebody waits.
const codeUnderWay = "under_way"

// Pauses between two tries of a change that is not possible yet.
const untilPause = 250 * time.Millisecond

// until tries for so long as an error is one that passes.
func (c *ctl) until(ctx context.Context, wait time.Duration, passes func(error) bool, try func(context.Context) error) error {
	end := c.now().Add(wait)
	for {
		err := try(ctx)
		if err == nil || !passesOr(err, passes, wait) || !c.now().Before(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-c.after(untilPause):
		}
	}
}

// passesOr: whoever waits at all waits for a leader, too.
func passesOr(err error, passes func(error) bool, wait time.Duration) bool {
	var f *failure
	return wait > 0 && (passes(err) || errors.As(err, &f) && f.exit == exitUnreachable && f.status != 0)
}

func (c *ctl) changeMembers(ctx context.Context, doing, path string, body any, what string) error {
	a, err := c.askForChange(ctx, doing, path, body)
	if err != nil {
		return err
	}
	return c.show(a.said(what))
}

func (c *ctl) askForChange(ctx context.Context, doing, path string, body any) (changed, error) {
	var a changed
	err := c.adminCall(ctx, request{doing: doing, method: http.MethodPost, path: "/admin/v1/" + path, body: body}, &a)
	return a, err
}

// adminCall is call for the administration port of the member that is asked,
// whose answers have v1's form.
func (c *ctl) adminCall(ctx context.Context, r request, out any) error {
	base, err := c.adminBase(ctx, r.doing)
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	patience := patienceOf(ctx, c.timeout)
	answer, body, err := c.roundTrip(within, r, base)
	if err != nil {
		return noAnswer(ctx, r, base, patience, err)
	}
	if answer.StatusCode >= 300 {
		return adminRefused(r, base, answer, body)
	}
	var said struct{ Data json.RawMessage }
	if json.Unmarshal(body, &said) != nil || json.Unmarshal(said.Data, out) != nil {
		return strange(r, base, answer, body)
	}
	return nil
}

// adminRefused is an error answer of the administration port.
func adminRefused(r request, base string, answer *http.Response, body []byte) error {
	var said struct{ Code, Message string }
	if json.Unmarshal(body, &said) != nil || said.Code == "" {
		return strange(r, base, answer, body)
	}
	f := &failure{doing: r.doing, code: said.Code, status: answer.StatusCode, exit: exitOf(answer.StatusCode), why: said.Message}
	switch {
	case answer.StatusCode == http.StatusUnauthorized:
		f.next = "--token or " + tokenVariable + " says who you are: admin.token in the member's data directory holds it"
	case f.code == "member_behind":
		f.next = "stellmapctl member list shows how far it is; --wait waits for it"
	case answer.StatusCode != http.StatusConflict && answer.StatusCode != http.StatusNotFound: // these say themselves what to do
		f.next = next(f, answer.Header.Get("Retry-After"))
	}
	return f
}
