package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"

	"github.com/stellmap/stellmap/internal/version"
)

func (a *API) adminRoutes() []route {
	routes := []route{{method: http.MethodGet, pattern: "/admin/v1/status", surface: surfaceAdmin, reads: true, serve: a.status}}
	if a.snapshot != nil {
		routes = append(routes, route{method: http.MethodGet, pattern: "/admin/v1/snapshot", surface: surfaceAdmin, reads: true, long: true, serve: a.sendSnapshot})
	}
	return slices.Concat(routes, a.memberRoutes(), a.federationRoutes())
}

// knows says whether the request carries the admin token.
func (a *API) knows(q *http.Request) bool { return a.IsOperator(q.Header.Get("Authorization")) }

// IsOperator says whether an Authorization header has the admin token. Digests are
// compared, so that the time it takes tells nothing of the token, its length included.
func (a *API) IsOperator(authorization string) bool {
	if a.token == "" {
		return true
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	given, want := sha256.Sum256([]byte(strings.TrimSpace(token))), sha256.Sum256([]byte(a.token))
	return subtle.ConstantTimeCompare(given[:], want[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

type adminStatus struct {
	ClusterID    uint64 `json:"clusterId"`
	LocalNodeID  uint64 `json:"localNodeId"`
	Region       string `json:"region"`
	Role         string `json:"role"`
	Term         uint64 `json:"term"`
	CommitIndex  uint64 `json:"commitIndex"`
	AppliedIndex uint64 `json:"appliedIndex"`
	Confirmed    bool   `json:"confirmed"`
	Incarnation  string `json:"incarnation"`
	Version      string `json:"version"`
	adminMembers
	StateCheck StateCheck        `json:"stateCheck"`
	HTTPAddrs  map[uint64]string `json:"httpAddrs"`
	GRPCAddrs  map[uint64]string `json:"grpcAddrs"`
	AdminAddrs map[uint64]string `json:"adminAddrs"`
	XDSAddrs   map[uint64]string `json:"xdsAddrs"`
}

func (a *API) status(w http.ResponseWriter, _ *http.Request) error {
	s := a.cluster()
	data := adminStatus{
		ClusterID: s.ClusterID, LocalNodeID: s.ID, Region: s.Region, Role: s.Role,
		Term: s.Term, CommitIndex: s.Commit, AppliedIndex: s.Applied, Confirmed: s.Confirmed,
		Incarnation: s.Incarnation, Version: version.Number, adminMembers: s.adminMembers(),
		StateCheck: s.stateCheck(),
		HTTPAddrs:  s.addresses(func(m *Member) string { return m.HTTP }),
		GRPCAddrs:  s.addresses(func(m *Member) string { return m.GRPC }),
		AdminAddrs: s.addresses(func(m *Member) string { return m.Admin }),
		XDSAddrs:   s.addresses(func(m *Member) string { return m.XDS }),
	}
	writeData(w, &data)
	return nil
}

// stateCheck is the check with lists that are there though they are empty.
func (s *ClusterStatus) stateCheck() StateCheck {
	c := s.StateCheck
	c.Equal, c.Different, c.Missing = listOf(c.Equal), listOf(c.Different), listOf(c.Missing)
	return c
}

func (s *ClusterStatus) addresses(of func(*Member) string) map[uint64]string {
	all := make(map[uint64]string, len(s.Members))
	for i := range s.Members {
		all[s.Members[i].ID] = of(&s.Members[i])
	}
	return all
}
