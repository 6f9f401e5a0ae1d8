package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// Membership is how the admin port changes who the members are. It works on any
// member. Its errors are *MembershipError or the registry's.
type Membership interface {
	// Change makes a change and returns the revision at which it is applied here.
	Change(ctx context.Context, c MemberChange) (registry.Revision, error)
	// TakeIn makes a node that asks for it a learner, and tells it of the cluster.
	TakeIn(ctx context.Context, m Member, uuid string) (Joining, error)
	// Progress is how far the members are, as the leader knows.
	Progress(ctx context.Context) ([]MemberProgress, error)
}

// MemberChangeKind is what shall become of a member.
type MemberChangeKind uint8

// Kinds of a MemberChange.
const (
	AddLearner     MemberChangeKind = iota + 1 // Member learns
	Promote                                    // ID votes
	Remove                                     // ID is none any more
	Replace                                    // By takes the place of ID
	AbandonReplace                             // none does
	TransferLeader                             // ID leads; 0 = whoever is nearest
)

// MemberChange is one change of the members.
type MemberChange struct {
	Kind   MemberChangeKind
	Member Member
	ID, By uint64
	Force  bool // also when no quorum would be left
}

// Joining is what a node that is taken in must know.
type Joining struct {
	ClusterID             uint64
	Founders, Incarnation string
	Members               []JoiningMember
}

// A JoiningMember is a line of the address book as a node that joins needs it.
type JoiningMember struct {
	Member
	UUID    string
	Since   uint64
	Removed bool
}

// A Replicator is somebody outside of the cluster who keeps a copy of it, and follows
// this member.
type Replicator struct {
	Name            string            `json:"name"`
	Region          string            `json:"region"`    // "" = it is none
	ClusterID       uint64            `json:"clusterId"` // 0 = it is none
	Since           time.Time         `json:"since"`
	SentRevision    registry.Revision `json:"sentRevision"`
	AckedRevision   registry.Revision `json:"ackedRevision"`
	BehindRevisions uint64            `json:"behindRevisions"`
	WindowBytes     int               `json:"windowBytes"` // told and not acknowledged
}

// MemberProgress is how far a member's log is, as the leader knows.
type MemberProgress struct {
	ID            uint64
	Match, Behind uint64
	Learner       bool
	Active        bool   // it was heard lately
	State         string // probe, replicate or snapshot
}

// Replacement is one voter that takes another's place.
type Replacement struct{ Old, New uint64 }

// MembershipReason is why a change of the members is refused.
type MembershipReason uint8

// Reasons of a MembershipError.
const (
	MembershipInvalid MembershipReason = iota + 1
	MembershipUnknown
	MembershipRemoved
	MembershipConflict
	MembershipBehind
	MembershipQuorum
	MembershipBusy   // another change is under way; the same call may work in a moment
	MembershipDenied // whoever asks has not proved to be the node that it is about
)

// A MembershipError says why a change of the members was not made, and what to do.
type MembershipError struct {
	Reason MembershipReason
	Text   string
	Behind uint64 // with MembershipBehind
}

func (e *MembershipError) Error() string { return e.Text }

// membershipFailures is how each reason is answered.
var membershipFailures = map[MembershipReason]*failure{
	MembershipInvalid:  {status: http.StatusBadRequest, Refusal: registry.Refusal{Code: "bad_request", Title: "Bad request"}},
	MembershipUnknown:  {status: http.StatusNotFound, Refusal: registry.Refusal{Code: "not_found", Title: "Not found"}},
	MembershipRemoved:  {status: http.StatusConflict, Refusal: registry.Refusal{Code: "member_removed", Title: "Removed"}},
	MembershipConflict: {status: http.StatusConflict, Refusal: registry.Refusal{Code: "member_conflict", Title: "Conflict"}},
	MembershipBehind:   {status: http.StatusConflict, Refusal: registry.Refusal{Code: "member_behind", Title: "Behind"}},
	MembershipQuorum:   {status: http.StatusConflict, Refusal: registry.Refusal{Code: "no_quorum_left", Title: "No quorum would be left"}},
	MembershipDenied:   {status: http.StatusForbidden, Refusal: registry.Refusal{Code: "forbidden", Title: "Forbidden"}},
	MembershipBusy:     {status: http.StatusServiceUnavailable, Refusal: registry.Refusal{Code: "members_busy", Title: "Members are changing", Retry: true}},
}

func (a *API) memberRoutes() []route {
	if a.membership == nil {
		return nil
	}
	post := func(pattern string, serve handler) route {
		return route{method: http.MethodPost, pattern: "/admin/v1/" + pattern, surface: surfaceAdmin, serve: serve}
	}
	join := post("members/join", a.join)
	join.open = true // whoever reaches the port without authentication may join, as it may register
	return []route{
		post("members/add-learner", a.changeOf(AddLearner)),
		post("members/promote", a.changeOf(Promote)),
		post("members/remove", a.changeOf(Remove)),
		post("members/replace", a.changeOf(Replace)),
		post("members/abandon", a.changeOf(AbandonReplace)),
		post("leader/transfer", a.transfer),
		join,
		{method: http.MethodGet, pattern: "/admin/v1/replication/status", surface: surfaceAdmin, reads: true, serve: a.replication},
	}
}

// memberBody is the body of all changes of the members, as the existing server has it.
type memberBody struct {
	NodeID    uint64 `json:"nodeId"`
	NewNodeID uint64 `json:"newNodeId"` // of replace
	Force     bool   `json:"force"`     // of remove
	addressBody
}

type addressBody struct {
	HTTPAddr  string `json:"httpAddr"`
	XDSAddr   string `json:"xdsAddr"`
	GRPCAddr  string `json:"grpcAddr"`
	AdminAddr string `json:"adminAddr"`
}

func (b addressBody) member(id uint64) Member {
	return Member{ID: id, HTTP: b.HTTPAddr, XDS: b.XDSAddr, GRPC: b.GRPCAddr, Admin: b.AdminAddr}
}

func (a *API) changeOf(kind MemberChangeKind) handler {
	return func(w http.ResponseWriter, q *http.Request) error {
		var body memberBody
		if err := decodeOptional(w, q, &body); err != nil {
			return err
		}
		if body.NodeID == 0 && kind != AbandonReplace {
			return invalid("nodeId", "is missing: the id of the member that it is about")
		}
		if body.NewNodeID == 0 && kind == Replace {
			return invalid("newNodeId", "is missing: the id of the node that takes the place")
		}
		return a.change(w, q, MemberChange{Kind: kind, Member: body.member(body.NodeID), ID: body.NodeID, By: body.NewNodeID, Force: body.Force})
	}
}

func (a *API) transfer(w http.ResponseWriter, q *http.Request) error {
	var body struct {
		TargetNodeID uint64 `json:"targetNodeId"`
	}
	if err := decodeOptional(w, q, &body); err != nil {
		return err
	}
	return a.change(w, q, MemberChange{Kind: TransferLeader, ID: body.TargetNodeID})
}

// change answers with the members as they are then.
func (a *API) change(w http.ResponseWriter, q *http.Request, c MemberChange) error {
	about(w, "node "+strconv.FormatUint(c.ID, 10))
	at, err := a.membership.Change(q.Context(), c)
	if err != nil {
		return err
	}
	s := a.cluster()
	setRevision(w, at)
	writeData(w, &struct {
		Revision registry.Revision `json:"revision"`
		adminMembers
	}{at, s.adminMembers()})
	return nil
}

// adminMembers is who is what.
type adminMembers struct {
	LeaderID       uint64            `json:"leaderId"`
	Voters         []uint64          `json:"voters"`
	VotersOutgoing []uint64          `json:"votersOutgoing"`
	Learners       []uint64          `json:"learners"`
	Removed        []uint64          `json:"removed"`
	Replacement    *adminReplacement `json:"replacement,omitempty"`
}

type adminReplacement struct {
	NodeID    uint64 `json:"nodeId"`
	NewNodeID uint64 `json:"newNodeId"`
	Stage     string `json:"stage"`
}

func (s *ClusterStatus) adminMembers() adminMembers {
	m := adminMembers{
		LeaderID: s.LeaderID, Voters: listOf(s.Voters), VotersOutgoing: listOf(s.VotersOutgoing), Learners: listOf(s.Learners), Removed: listOf(s.Removed),
	}
	if r := s.Replacement; r != nil {
		m.Replacement = &adminReplacement{r.Old, r.New, s.stage(r)}
	}
	return m
}

// listOf is never null in JSON.
func listOf(ids []uint64) []uint64 { return append([]uint64{}, ids...) }

// stage is how far a replacement is.
func (s *ClusterStatus) stage(r *Replacement) string {
	switch {
	case len(s.VotersOutgoing) > 0:
		return "changing"
	case slices.Contains(s.Learners, r.New):
		return "catching up"
	}
	return "waiting for the new node"
}

type joinBody struct {
	NodeID    uint64 `json:"nodeId"`
	UUID      string `json:"uuid"`
	ClusterID uint64 `json:"clusterId"`
	Region    string `json:"region"`
	addressBody
}

type joinAnswer struct {
	ClusterID   uint64       `json:"clusterId"`
	Founders    string       `json:"founders"`
	Incarnation string       `json:"incarnation"`
	Members     []joinMember `json:"members"`
}

type joinMember struct {
	NodeID  uint64 `json:"nodeId"`
	UUID    string `json:"uuid"`
	Since   uint64 `json:"since"`
	Removed bool   `json:"removed"`
	addressBody
}

// join takes a node in. What it has to agree about is looked at first, so that no
// id is used up by a node that cannot stay.
func (a *API) join(w http.ResponseWriter, q *http.Request) error {
	var body joinBody
	if err := decode(w, q, &body); err != nil {
		return err
	}
	s := a.cluster()
	switch {
	case body.NodeID == 0:
		return invalid("nodeId", "is missing: the id of the node that joins")
	case body.UUID == "":
		return invalid("uuid", "is missing: that of the data directory of the node that joins")
	case body.GRPCAddr == "":
		return invalid("grpcAddr", "is missing: where the members reach the node that joins")
	case body.ClusterID != s.ClusterID:
		return &MembershipError{Reason: MembershipConflict, Text: fmt.Sprintf("this is cluster %d, and node %d is configured for cluster %d: set node.cluster_id", s.ClusterID, body.NodeID, body.ClusterID)}
	case body.Region != s.Region:
		return &MembershipError{Reason: MembershipConflict, Text: fmt.Sprintf("this is region %q, and node %d is configured for region %q: set node.region", s.Region, body.NodeID, body.Region)}
	}
	about(w, "node "+strconv.FormatUint(body.NodeID, 10))
	j, err := a.membership.TakeIn(q.Context(), body.member(body.NodeID), body.UUID)
	if err != nil {
		return err
	}
	answer := joinAnswer{ClusterID: j.ClusterID, Founders: j.Founders, Incarnation: j.Incarnation}
	for _, m := range j.Members {
		answer.Members = append(answer.Members, joinMember{m.ID, m.UUID, m.Since, m.Removed, addressBody{m.HTTP, m.XDS, m.GRPC, m.Admin}})
	}
	writeData(w, &answer)
	return nil
}

// replication is how far each member's log is.
func (a *API) replication(w http.ResponseWriter, q *http.Request) error {
	progress, err := a.membership.Progress(q.Context())
	if err != nil {
		return err
	}
	type one struct {
		NodeID        uint64 `json:"nodeId"`
		MatchIndex    uint64 `json:"matchIndex"`
		BehindEntries uint64 `json:"behindEntries"`
		Learner       bool   `json:"learner"`
		Active        bool   `json:"active"`
		State         string `json:"state"`
	}
	list := make([]one, len(progress))
	for i, p := range progress {
		list[i] = one{p.ID, p.Match, p.Behind, p.Learner, p.Active, p.State}
	}
	s := a.cluster()
	writeData(w, &struct {
		LeaderID    uint64       `json:"leaderId"`
		Members     []one        `json:"members"`
		Replicators []Replicator `json:"replicators"`
	}{s.LeaderID, list, a.replicators()})
	return nil
}

// writeData answers as all of the admin port's calls do.
func writeData(w http.ResponseWriter, data any) {
	writeJSON(w, http.StatusOK, typeJSON, &struct {
		Code string `json:"code"`
		Data any    `json:"data"`
	}{"ok", data})
}
