package httpapi

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/registry"
)

// A giver is a caller of whom it is known what he has: everything but what one role says.
type giver struct {
	holder
	lacks string
}

func (g *giver) Lacks(roles []registry.NamedRole, scope *registry.Rule) string {
	for _, r := range roles {
		if r.Name == g.lacks && len(r.Role.Rules) > 0 {
			return "rule 1 of role " + r.Name
		}
	}
	return ""
}

func anything(registry.Ask) bool { return true }

func reads(a registry.Ask) bool { return a.Verb == registry.VerbRead && a.Namespace == "prod" }

func writesAccess(a registry.Ask) bool {
	return a.Resource == registry.ResourceAccess || a.Resource == registry.ResourceTokens
}

// A drawer is an authority whose tokens are 1, 2 and so on, and who lets an operator do
// anything, and everybody else read what is in prod.
type drawer struct{ drawn int }

func (d *drawer) DrawToken() (id, token string, hash registry.AccessTokenHash, err error) {
	d.drawn++
	id, token = fmt.Sprintf("t%d", d.drawn), fmt.Sprintf("secret-%d", d.drawn)
	return id, token, sha256.Sum256([]byte(token)), nil
}

func (d *drawer) Subject(ctx context.Context, name string) (Subject, error) {
	if c := registry.CallerOf(ctx); name == "" && c != nil {
		return Subject{Who: c.Who(), Explain: func(a registry.Ask) Verdict { return Verdict{Allowed: c.Allows(a), Reason: "so it is"} }}, nil
	}
	if name == "nobody" {
		return Subject{}, &registry.ValidationError{Problems: []registry.Problem{{Reason: `"nobody" is neither an identity nor a token`}}}
	}
	return Subject{
		Who: name, Own: "prod", Roles: []GivenRole{{Role: "readers", By: "binding all"}},
		Explain: func(a registry.Ask) Verdict {
			if a.Namespace != "prod" {
				return Verdict{Reason: "no rule of any of its roles allows it", Near: []string{"rule 1 of role readers, by binding all allows it in namespace prod"}}
			}
			return Verdict{Allowed: true, Reason: "rule 1 of role readers, by binding all allows it", Role: "readers", Rule: 1, By: "binding all"}
		},
	}, nil
}

// TestTheExamplesOfTheAccessDocs does what docs/access.md shows.
func TestTheExamplesOfTheAccessDocs(t *testing.T) {
	m := newMember(t, func(c *Config) {
		c.Authority = &drawer{}
		c.Access = func(*http.Request) (registry.Caller, error) { return &giver{holder{"operator", anything}, ""}, nil }
	})
	m.tryExamples("../../docs/access.md", 8)
}

// TestATokenIsInNothingButItsAnswer looks for a token in all that is kept and told of it, and
// shows what the audit log says of calls about access.
func TestATokenIsInNothingButItsAnswer(t *testing.T) {
	d := newDiary(t, nil)
	m := newMember(t, func(c *Config) { c.Authority, c.Audit = &drawer{}, d.log })
	m.must(http.StatusCreated, http.MethodPut, atAccess+"roles/ops", `{"rules":[]}`)
	m.must(http.StatusOK, http.MethodPut, atAccess+"roles/ops?dryRun=true", `{"rules":[]}`)
	m.must(http.StatusCreated, http.MethodPut, atAccess+"bindings/ops", `{"roles":["ops"],"subjects":["/operator/ann"]}`)
	secret := m.must(http.StatusCreated, http.MethodPost, atAccess+"tokens", `{"roles":["ops"]}`).Body.String()
	mustEqual(t, "that the token is told in "+secret, strings.Contains(secret, `"token":"secret-1"`), true)
	told := m.must(http.StatusOK, http.MethodGet, atAccess+"tokens", "").Body.String() + m.must(http.StatusOK, http.MethodGet, atAccess+"tokens/t1", "").Body.String()
	told += m.must(http.StatusOK, http.MethodPost, atAccess+"explain", `{"verb":"read","resource":"access","as":"t1"}`).Body.String()
	told += m.contents()
	m.must(http.StatusOK, http.MethodDelete, atAccess+"tokens/t1", "")
	m.must(http.StatusOK, http.MethodDelete, atAccess+"bindings/ops", "")
	want := []string{
		`{"who":"anonymous","port":"http","does":"putRole","on":"role ops","decision":"allowed",}`,
		`{"who":"anonymous","port":"http","does":"putBinding","on":"binding ops","decision":"allowed",}`,
		`{"who":"anonymous","port":"http","does":"grantToken","on":"token t1","decision":"allowed",}`,
		`{"who":"anonymous","port":"http","does":"revokeToken","on":"token t1","decision":"allowed",}`,
		`{"who":"anonymous","port":"http","does":"deleteBinding","on":"binding ops","decision":"allowed",}`,
	}
	mustEqual(t, "the audit log", strings.Join(d.lines(), "\n"), strings.Join(want, "\n"))
	kept := strings.Join(m.log.Requests, " ") + m.logs.String() + told + d.text()
	if strings.Contains(kept, "secret-1") || strings.Contains(kept, hexOf("secret-1")) {
		t.Error("the token is kept, or told again")
	}
}
