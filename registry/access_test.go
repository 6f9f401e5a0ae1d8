package registry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// access are the commands of stories about who may do what.
func (s *story) access(d *datadriven.TestData, out *strings.Builder) {
	if d.Cmd == "access" {
		showAccess(s.member.machine.Access(), s.clock.Now(), out)
		return
	}
	ctx, r, w := context.Background(), s.member.registry, Writing{By: "ann"}
	before := s.member.machine.Edition()
	name := ""
	if len(d.CmdArgs) > 0 {
		name = d.CmdArgs[0].Key
	}
	if version := uint64(0); d.HasArg("if") {
		d.ScanArgs(s.t, "if", &version)
		w.If.Version = &version
	}
	var edited Edited
	var err error
	switch d.Cmd {
	case "role":
		var role Role
		decodeStory(s.t, d, &role)
		edited, err = r.PutRole(ctx, "", name, role, w)
	case "binding":
		var b Binding
		decodeStory(s.t, d, &b)
		edited, err = r.PutBinding(ctx, "", name, b, w)
	case "unrole":
		edited, err = r.DeleteRole(ctx, "", name, w)
	case "unbind":
		edited, err = r.DeleteBinding(ctx, "", name, w)
	case "token":
		edited.Result, err = s.grantToken(d, name, out)
	case "revoke-token":
		edited.Result, err = r.RevokeToken(ctx, "", name)
	}
	outcome(out, edited.Result, err)
	for _, c := range edited.Changes {
		fmt.Fprintf(out, "version %d: %s %s -> %s\n", edited.Version, c.Field, c.Before, c.After)
	}
	if over := s.member.machine.Edition() != before; over != edited.Changed {
		fmt.Fprintf(out, "changed %v, and the edition is over %v\n", edited.Changed, over)
	}
}

func (s *story) grantToken(d *datadriven.TestData, id string, out *strings.Builder) (Result, error) {
	g := TokenGrant{ID: id, Hash: sha256.Sum256([]byte(id)), By: "ann"}
	if d.Input != "" {
		decodeStory(s.t, d, &struct {
			Roles      *[]string
			Scope      **Rule
			Holder     *string
			TTLSeconds *int64
		}{&g.Roles, &g.Scope, &g.Holder, &g.TTLSeconds})
	}
	ctx := context.Background()
	if d.HasArg("first") {
		ctx = WithCaller(ctx, founder{&askedGiver{}})
	}
	token, result, err := s.member.registry.GrantToken(ctx, "", g)
	if err == nil {
		fmt.Fprintf(out, "good for %v\n", time.Duration(token.ExpiresAt-token.GrantedAt)*time.Millisecond)
	}
	return result, err
}

// A founder is who sets up a cluster.
type founder struct{ *askedGiver }

func (founder) Founds() bool { return true }

func showAccess(a Access, now time.Time, out *strings.Builder) {
	for _, r := range a.Roles {
		if !r.BuiltIn {
			fmt.Fprintf(out, "role %s version %d: %+v\n", r.Name, r.Version, r.Role.Rules)
		}
	}
	for _, b := range a.Bindings {
		if !b.BuiltIn {
			fmt.Fprintf(out, "binding %s version %d: %v to %v\n", b.Name, b.Version, b.Binding.Roles, b.Binding.Subjects)
		}
	}
	for _, t := range a.Tokens {
		fmt.Fprintf(out, "token %s: %v of %v, expired %v\n", t.ID, t.Roles, t.By, t.Expired(now))
	}
}

// There is room for so many tokens. Those that have expired give theirs up.
func TestAccessTokensAreBounded(t *testing.T) {
	clock := newManualClock()
	m := newMember(t, clock)
	ctx := context.Background()
	grant := func(id string, ttl int64) error {
		_, _, err := m.registry.GrantToken(ctx, "", TokenGrant{ID: id, Hash: sha256.Sum256([]byte(id)), Roles: []string{RoleReader}, TTLSeconds: ttl})
		return err
	}
	for i := range accessTokensMax - 2 { // as if they had been granted: the log need not have them all
		id := fmt.Sprint("t", i)
		c := change{op: opTokenPut, access: accessChange{name: id, token: &AccessToken{ID: id, ExpiresAt: 1 << 60}}}
		m.machine.working.apply(&c)
		m.machine.published.apply(&c)
	}
	if err := errors.Join(grant("short", 10), grant("long", 100)); err != nil {
		t.Fatal(err)
	}
	if err := grant("more", 10); !errors.Is(err, ErrQuota) || !strings.Contains(err.Error(), "revoke some") {
		t.Fatalf("one token more than there may be: %v", err)
	}
	clock.advance(11 * time.Second)
	if err := grant("more", 10); err != nil {
		t.Fatalf("after one has expired: %v", err)
	}
	if m.machine.accessToken("short") != nil || m.machine.accessToken("long") == nil {
		t.Error("not the expired one has given up its place")
	}
}

// Whoever asks twice for one token is told that it was told, and has no other one's answer.
func TestATokenIsToldOnce(t *testing.T) {
	m := newMember(t, newManualClock())
	g := TokenGrant{ID: "a1", Hash: sha256.Sum256([]byte("first")), Roles: []string{RoleReader}}
	if _, _, err := m.registry.GrantToken(context.Background(), "", g); err != nil {
		t.Fatal(err)
	}
	g.Hash = sha256.Sum256([]byte("second"))
	if _, _, err := m.registry.GrantToken(context.Background(), "", g); !errors.Is(err, ErrTokenTold) {
		t.Errorf("granted again: %v", err)
	}
	if m.machine.accessToken("a1").Hash != sha256.Sum256([]byte("first")) {
		t.Error("the second has taken the first one's place")
	}
}

// An edition ends when something of access changes, and at no other change.
func TestAnEditionEndsWithAChangeOfAccess(t *testing.T) {
	m := newMember(t, newManualClock())
	edition := m.machine.Edition()
	m.register(reg("prod", "orders", "a", "10.0.0.1", 80))
	if m.machine.Edition() != edition {
		t.Error("a registration has ended the edition")
	}
	if _, err := m.registry.PutRole(context.Background(), "", "ops", Role{}, Writing{}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-edition.Over():
	default:
		t.Error("an edit of a role has not ended the edition")
	}
	if m.machine.Edition() == edition {
		t.Error("the edition that is over is the present one")
	}
}

// What is there from the beginning is as an operator could have written it, so its
// names, verbs and patterns are ones that exist.
func TestWhatIsBuiltInIsInOrder(t *testing.T) {
	for _, r := range builtIns {
		var bad problems
		r.Role.normalize(&bad)
		if err := bad.err(); err != nil || !strings.HasPrefix(r.Name, builtInPrefix) {
			t.Errorf("role %s: %v", r.Name, err)
		}
	}
	for _, b := range builtInBindings {
		var bad problems
		b.Binding.normalize(&bad)
		if err := bad.err(); err != nil || !strings.HasPrefix(b.Name, builtInPrefix) {
			t.Errorf("binding %s: %v", b.Name, err)
		}
	}
	byName := func(x, y NamedRole) int { return strings.Compare(x.Name, y.Name) }
	if !slices.IsSortedFunc(builtIns, byName) {
		t.Error("the built-in roles are not sorted")
	}
}

// access is an edit of a role or a binding, a token, or the end of one.
func (a *author) access(index Revision) []byte {
	w := Writing{By: fmt.Sprint("ann", index), If: a.precondition()}
	name := []string{"ops", "dev"}[a.random.IntN(2)]
	switch a.random.IntN(6) {
	case 0:
		return roleShelf(name).command(nil, w)
	case 1:
		return roleShelf(name).command(&Role{Rules: []Rule{{Deny: a.random.IntN(2) == 0, Verbs: []Verb{VerbRead}, Resources: []Resource{all}, Namespaces: []string{"prod"}}}}, w)
	case 2:
		return bindingShelf(name).command(nil, w)
	case 3:
		return bindingShelf(name).command(&Binding{Roles: []string{name, RoleReader}, Subjects: []string{"/ns/prod/*"}}, w)
	case 4:
		return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_RevokeToken{RevokeToken: &recordv1.RevokeToken{Id: name}}})
	}
	hash := sha256.Sum256([]byte(name))
	token := &recordv1.AccessToken{Hash: hash[:], Roles: []string{name}, Scope: (&Rule{Namespaces: []string{"prod"}}).record()}
	return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_GrantToken{GrantToken: &recordv1.GrantToken{Id: name, Token: token, TtlMs: 5000, By: w.By, First: a.random.IntN(2) == 0}}})
}

// TestWhatSaysWhoMayIsBoundedInBytes has as many names as there may be, each as long as it may be.
func TestWhatSaysWhoMayIsBoundedInBytes(t *testing.T) {
	long := func(head string, n, size int) string {
		return head + strings.Repeat("a", size-len(head)-4) + fmt.Sprintf("%04d", n)
	}
	var subjects, names []string
	for n := range patternsMax {
		subjects, names = append(subjects, long("/ns/", n, subjectBytesMax)), append(names, long("", n, 253))
	}
	var bad problems
	Binding{Roles: []string{RoleReader}, Subjects: subjects}.normalize(&bad)
	TokenGrant{ID: "t", Roles: []string{RoleReader}, Scope: &Rule{Namespaces: names, Services: names}}.normalize(&bad)
	Binding{Roles: []string{RoleReader}, Subjects: subjects[:7]}.normalize(&bad)
	if len(bad) != 2 || bad[0].Field != "subjects" || bad[1].Field != "scope" {
		t.Fatalf("refused is %v; want the subjects of the first and the scope", bad)
	}
}
