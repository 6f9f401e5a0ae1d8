package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// memberTimeMax bounds the look at each other member: one that hangs must not
// make the whole status hang.
const memberTimeMax = time.Second

// clusterStatus is what status shows.
type clusterStatus struct {
	Server string `json:"server"`
	Ready  bool   `json:"ready"` // the server that was asked: a write sent to it now succeeds
	Reason string `json:"reason,omitempty"`
	memberList
	Members     []memberStatus `json:"members"` // in place of memberList's
	Protections []protection   `json:"protections,omitempty"`
}

type memberStatus struct {
	member
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
}

func (c *ctl) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Members, leader, revision, and who is ready",
		Long: `status shows the members of the region as the asked one sees them, who leads,
the revision that it has applied, and which members are ready. Each member is
asked itself, for at most a second. Below is what self-preservation keeps from
expiring, why, and what ends it.

STATE is what the members' last comparison of their states said of each: equal,
differs, or missing while it has not said yet. The last line says when that was.

It exits with 1 when the asked server answers but is not ready: a write sent
to it now would not succeed. Other members that are not ready only show.`,
		Example: `  stellmapctl status
  stellmapctl status --server http://127.0.0.1:8081 -o wide
  stellmapctl status -o json | jq .leaderId`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.status(cmd.Context()) },
	}
}

func (c *ctl) status(ctx context.Context) error {
	members, err := c.members(ctx, "status")
	if err != nil {
		return err
	}
	s, err := c.look(ctx, members)
	if err != nil {
		return err
	}
	if s.Protections, err = c.protections(ctx, "status"); err != nil {
		return err
	}
	v := s.view()
	v.notes = c.protectionLines(s.Protections)
	if err := c.show(v); err != nil {
		return err
	}
	if !s.Ready {
		return &failure{doing: "status", code: "not_ready", exit: exitFailed, why: fmt.Sprintf("%s is not ready: %s", s.Server, s.Reason),
			next: "a write sent to it now would not succeed: ask another member with --server, or try again"}
	}
	return nil
}

func (c *ctl) members(ctx context.Context, doing string) (memberList, error) {
	var list memberList
	err := c.call(ctx, request{doing: doing, method: http.MethodGet, path: "/api/v2/members"}, &list)
	return list, err
}

// look asks every member whether it is ready, all at once.
func (c *ctl) look(ctx context.Context, list memberList) (clusterStatus, error) {
	base, err := c.base()
	if err != nil {
		return clusterStatus{}, err
	}
	s := clusterStatus{Server: base, memberList: list, Members: make([]memberStatus, len(list.Members))}
	scheme, _, _ := strings.Cut(base, "://")
	var asked sync.WaitGroup
	asked.Go(func() { s.Ready, s.Reason = c.ready(ctx, base, c.timeout, c.token) })
	for i, m := range list.Members {
		s.Members[i].member = m
		if m.Local {
			continue
		}
		asked.Go(func() {
			// Without the token: the address is the server's word, not ours.
			s.Members[i].Ready, s.Members[i].Reason = c.ready(ctx, scheme+"://"+m.HTTP, min(c.timeout, memberTimeMax), "")
		})
	}
	asked.Wait()
	for i := range s.Members {
		if s.Members[i].Local { // the one at base, whatever address it is known by
			s.Members[i].Ready, s.Members[i].Reason = s.Ready, s.Reason
		}
	}
	return s, nil
}

// ready asks one member, and says why it is not.
func (c *ctl) ready(ctx context.Context, base string, patience time.Duration, token string) (ok bool, reason string) {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	h, err := http.NewRequestWithContext(within, http.MethodGet, base+"/readyz", nil)
	if err != nil {
		return false, err.Error()
	}
	if token != "" {
		h.Header.Set("Authorization", "Bearer "+token)
	}
	answer, body, err := c.send(h)
	if err != nil {
		return false, reasonOf(err, patience)
	}
	if answer.StatusCode == http.StatusOK {
		return true, ""
	}
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &said) != nil || said.Message == "" {
		said.Message = fmt.Sprintf("/readyz answers %d", answer.StatusCode)
	}
	return false, said.Message
}

func (s clusterStatus) view() view {
	v := view{
		whole: s,
		head:  fmt.Sprintf("cluster %d   region %s   leader %s   term %d   asked member %d at %s", s.ClusterID, s.Region, idOrNone(s.LeaderID), s.Term, s.LocalNodeID, s.Server),
		columns: []column{{"ID", false}, {"ROLE", false}, {"VOTER", false}, {"READY", false}, {"BEHIND", false}, {"HTTP", false}, {"XDS", false},
			{"GRPC", true}, {"ADMIN", true}, {"STATE", false}, {"REASON", false}},
		foot: revisionLine(s.Revision) + s.StateCheck.line(len(s.Members)),
	}
	for _, m := range s.Members {
		v.items = append(v.items, m)
		v.names = append(v.names, fmt.Sprint(m.ID))
		v.rows = append(v.rows, []string{fmt.Sprint(m.ID), m.Role, yesNo(m.Voter), yesNo(m.Ready), m.behind(), m.HTTP, m.XDS, m.GRPC, m.Admin, s.StateCheck.of(m.ID), m.Reason})
	}
	return v
}

// of is how a member's state is beside that of a majority.
func (c *stateCheck) of(id uint64) string {
	switch {
	case c == nil || c.Index == 0:
		return ""
	case slices.Contains(c.Equal, id):
		return "equal"
	case slices.Contains(c.Different, id):
		return "differs"
	case slices.Contains(c.Missing, id):
		return "missing"
	}
	return ""
}

// line is what the states' comparison has come to; one state is compared with none.
func (c *stateCheck) line(members int) string {
	switch {
	case c == nil || members < 2:
		return ""
	case c.Index == 0:
		return "   states not compared yet"
	case c.Split:
		return fmt.Sprintf("   states compared after entry %d: no state has a majority, nothing is written", c.Index)
	}
	return fmt.Sprintf("   states compared after entry %d", c.Index)
}

func revisionLine(revision uint64) string { return fmt.Sprintf("revision %d", revision) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
