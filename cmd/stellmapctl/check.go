package main

import (
	"slices"
	"strings"
	"time"
)

// A check is how the cluster tries an instance.
type check struct {
	Name            string `json:"name,omitempty"`
	Kind            string `json:"kind"`
	Endpoint        string `json:"endpoint,omitempty"`
	Path            string `json:"path,omitempty"`
	Service         string `json:"service,omitempty"`
	Send            string `json:"send,omitempty"`
	Expect          string `json:"expect,omitempty"`
	ServerName      string `json:"serverName,omitempty"`
	TLSSkipVerify   bool   `json:"tlsSkipVerify,omitempty"`
	IntervalSeconds int64  `json:"intervalSeconds,omitempty"`
	TimeoutSeconds  int64  `json:"timeoutSeconds,omitempty"`
	Rise            int    `json:"rise,omitempty"`
	Fall            int    `json:"fall,omitempty"`
	Initial         string `json:"initial,omitempty"`
}

// parseCheck reads [NAME=]KIND[@ENDPOINT][/PATH]. Which kinds there are, and what
// they may have, is the server's to say.
func parseCheck(text string, every time.Duration) (check, error) {
	c := check{IntervalSeconds: int64(every / time.Second)}
	rest := text
	if name, after, ok := strings.Cut(rest, "="); ok && !strings.ContainsAny(name, "@/") {
		c.Name, rest = name, after
		if name == "" {
			return check{}, usagef("--check: %q has no name before the =", text)
		}
	}
	path := ""
	if cut := strings.IndexByte(rest, '/'); cut >= 0 {
		path, rest = rest[cut:], rest[:cut]
	}
	c.Kind, c.Endpoint, _ = strings.Cut(rest, "@")
	switch {
	case c.Kind == "":
		return check{}, usagef("--check: %q has no kind, such as http/healthz", text)
	case c.Kind == "grpc" || c.Kind == "grpcs":
		c.Service = strings.TrimPrefix(path, "/")
	default:
		c.Path = path
	}
	return c, nil
}

// checkStates are what the checks of an instance say, each by its name.
func (i *instance) checkStates() string {
	var out []string
	for _, c := range i.Checks {
		state := "passing"
		at := slices.IndexFunc(i.Conditions, func(said condition) bool { return said.Source == "check" && said.Name == c.Name })
		if at >= 0 {
			state = i.Conditions[at].Status
			if i.Conditions[at].HeldUntil != "" {
				state += " (held)"
			}
		}
		out = append(out, c.Name+"="+state)
	}
	return strings.Join(out, ",")
}
