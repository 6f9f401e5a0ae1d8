package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// The health pages answer from what this member knows: none of them waits for anybody.
func (a *API) healthRoutes() []route { return a.healthPages(a.ready, a.readyForXDS) }

func (a *API) healthPages(ready, readyForXDS func(*ClusterStatus) []check) []route {
	page := func(pattern, word string, checks func(*ClusterStatus) []check) route {
		return route{method: http.MethodGet, pattern: pattern, serve: func(w http.ResponseWriter, q *http.Request) error {
			a.health(w, q, word, checks)
			return nil
		}}
	}
	return []route{
		page("/livez", "ok", a.alive),
		page("/healthz", "ok", a.alive),
		page("/readyz", "ready", ready),
		page("/readyz/xds", "ready", readyForXDS),
	}
}

// A check is one thing that has to be so.
type check struct {
	name  string
	fault string // "" = it is so
	hint  string // what else should be known of it
}

// alive is true of whoever can answer.
func (a *API) alive(*ClusterStatus) []check { return []check{{name: "process"}} }

// ready is whether a write sent now would succeed, and a watch that goes on after it. Other regions do not count.
func (a *API) ready(s *ClusterStatus) []check {
	leader, quorum, incarnation := check{name: "leader"}, check{name: "quorum"}, check{name: "incarnation"}
	if s.LeaderID == 0 {
		leader.fault = "no leader is known"
	}
	if !s.Confirmed {
		quorum.fault = "no read has been confirmed by a quorum since the start"
	}
	if s.Incarnation == "" {
		incarnation.fault = "the cluster's incarnation, which stands in every resume point, is not known here yet"
	}
	checks := []check{leader, quorum, incarnation}
	if s.LowSpace {
		checks = append(checks, check{name: "space", hint: "low, what grows may be refused until there is room"})
	}
	return checks
}

// Ready is nil when /readyz says so.
func (a *API) Ready() error {
	s := a.cluster()
	if faults := faultsOf(a.ready(&s)); faults != "" {
		return errors.New(faults)
	}
	return nil
}

// readyForXDS is whether a new proxy would be served here, which is so without a leader, too, after a while.
func (a *API) readyForXDS(*ClusterStatus) []check {
	xds := check{name: "xds"}
	if err := a.xdsReady(); err != nil {
		xds.fault = err.Error()
	}
	return []check{xds}
}

type healthBody struct {
	Code    string     `json:"code"`
	Message string     `json:"message,omitempty"`
	Data    healthData `json:"data"`
}

type healthData struct {
	Status      string `json:"status"`
	LeaderID    uint64 `json:"leaderId"`
	LocalNodeID uint64 `json:"localNodeId"`
	LeaderAddr  string `json:"leaderAddr"`
}

func (a *API) health(w http.ResponseWriter, q *http.Request, word string, checksOf func(*ClusterStatus) []check) {
	s := a.cluster()
	checks := checksOf(&s)
	status, code, faults := http.StatusOK, "ok", faultsOf(checks)
	if faults != "" {
		status, code, word = http.StatusServiceUnavailable, "not_ready", "not_ready"
	}
	if a.access != nil && registry.CallerOf(q.Context()) == nil {
		writeBytes(w, status, typeText, []byte(word+"\n"))
		return
	}
	if q.URL.Query().Has("verbose") {
		writeBytes(w, status, typeText, verbose(checks))
		return
	}
	data := healthData{Status: word, LeaderID: s.LeaderID, LocalNodeID: s.ID, LeaderAddr: s.leaderAddress()}
	writeJSON(w, status, typeJSON, &healthBody{Code: code, Message: faults, Data: data})
}

func faultsOf(checks []check) string {
	var faults []string
	for _, c := range checks {
		if c.fault != "" {
			faults = append(faults, c.fault)
		}
	}
	return strings.Join(faults, "; ")
}

// verbose has one line for each check, in the form that Kubernetes made known.
func verbose(checks []check) []byte {
	var b []byte
	for _, c := range checks {
		switch {
		case c.fault != "":
			b = fmt.Appendf(b, "[-] %s failed: %s\n", c.name, c.fault)
		case c.hint != "":
			b = fmt.Appendf(b, "[!] %s %s\n", c.name, c.hint)
		default:
			b = fmt.Appendf(b, "[+] %s ok\n", c.name)
		}
	}
	return b
}

// leaderAddress is where the leader's HTTP is; "" when that is not known.
func (s *ClusterStatus) leaderAddress() string {
	for _, m := range s.Members {
		if m.ID == s.LeaderID {
			return m.HTTP
		}
	}
	return ""
}
