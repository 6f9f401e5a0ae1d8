package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// accessPath heads the paths of who may do what.
const accessPath = "/api/v2/access/"

// accessToken is one as it is listed.
type accessToken struct {
	ID          string   `json:"id"`
	Description string   `json:"description,omitempty"`
	Roles       []string `json:"roles"`
	Scope       *scope   `json:"scope,omitempty"`
	Holder      string   `json:"holder,omitempty"`
	GrantedAt   string   `json:"grantedAt"`
	GrantedBy   string   `json:"grantedBy,omitempty"`
	ExpiresAt   string   `json:"expiresAt"`
	Revision    uint64   `json:"revision"`
}

// scope is what a token is narrowed to; a list that is empty narrows nothing.
type scope struct {
	Verbs      []string `json:"verbs,omitempty"`
	Resources  []string `json:"resources,omitempty"`
	Namespaces []string `json:"namespaces,omitempty"`
	Services   []string `json:"services,omitempty"`
}

func (s *scope) String() string {
	if s == nil {
		return ""
	}
	var parts []string
	for _, one := range []struct {
		name string
		list []string
	}{{"verbs", s.Verbs}, {"resources", s.Resources}, {"namespaces", s.Namespaces}, {"services", s.Services}} {
		if len(one.list) > 0 {
			parts = append(parts, one.name+"="+strings.Join(one.list, ","))
		}
	}
	return strings.Join(parts, " ")
}

func (c *ctl) tokenCommand() *cobra.Command {
	token := c.group(&cobra.Command{
		Use:   "token",
		Short: "Access tokens: make one, list them, revoke them",
		Long: `token makes, lists and revokes access tokens. A token has roles of its own:
whoever presents it, with --token or STELLMAP_TOKEN, may do what these allow,
and nothing of what his certificate may besides. It ends by itself.`,
		Example: `  stellmapctl token create --role system:reader --expires 8h
  stellmapctl token list
  stellmapctl token revoke 0badc0de0bad`,
	})
	token.AddCommand(c.tokenCreateCommand(), c.tokenListCommand(), c.tokenRevokeCommand())
	return token
}

// tokenWish is the body that asks for a token.
type tokenWish struct {
	Description string   `json:"description,omitempty"`
	Roles       []string `json:"roles"`
	Scope       *scope   `json:"scope,omitempty"`
	Holder      string   `json:"holder,omitempty"`
	TTLSeconds  int64    `json:"ttlSeconds,omitempty"`
}

func (c *ctl) tokenCreateCommand() *cobra.Command {
	var wish tokenWish
	var within scope
	var expires time.Duration
	bootstrap := ""
	cmd := &cobra.Command{
		Use:   "create --role ROLE",
		Short: "Make an access token, which is printed this once",
		Long: `create makes an access token and prints it: the token alone on stdout, what it is
good for on stderr. It is kept nowhere: who loses it makes another one.

It has the roles that are given, and --namespace, --service, --verb and
--resource narrow them: the token is good for nothing beyond. A namespace or a
service may be the beginning of names and *. Nobody gives what he does not have.
A token without --expires is good for a day, and none for more than 90.

--bootstrap makes the first token of a cluster, by the file bootstrap.token in the
data directory of the member that is asked. Its role is system:admin, if no other
is given. When all tokens are lost, admin.token does the same on that member's
administration port: --server names it, and --token has what the file holds.`,
		Example: `  stellmapctl token create --role system:reader --expires 8h > token
  stellmapctl token create --bootstrap ./n1/bootstrap.token > token
  stellmapctl token create --role orders-team --namespace prod --service 'orders*' --description 'builds of orders'
  stellmapctl token create --role system:workload --namespace prod --holder /ns/prod/sa/web -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if bootstrap != "" {
				if cmd.Flags().Changed("token") {
					return usagef("--bootstrap contradicts --token: leave one of the two out")
				}
				if c.token, err = secretIn("--bootstrap", bootstrap); err != nil {
					return err
				}
			}
			if bootstrap != "" && len(wish.Roles) == 0 {
				wish.Roles = []string{roleAdmin}
			}
			if len(wish.Roles) == 0 {
				return usagef("--role: is missing, what the token may do; stellmapctl auth role list shows those that there are")
			}
			if expires < 0 || expires%time.Second != 0 || expires == 0 && cmd.Flags().Changed("expires") {
				return usagef("--expires: %v is not allowed: whole seconds, at least one", expires)
			}
			wish.TTLSeconds = int64(expires / time.Second)
			if within.String() != "" {
				wish.Scope = &within
			}
			return c.createToken(cmd.Context(), wish)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&wish.Roles, "role", nil, "a role that it has; can be given several times")
	flags.StringSliceVarP(&within.Namespaces, "namespace", "n", nil, "a namespace that it is narrowed to; can be given several times, like the next")
	flags.StringSliceVar(&within.Services, "service", nil, "a service that it is narrowed to")
	flags.StringSliceVar(&within.Verbs, "verb", nil, "a verb that it is narrowed to")
	flags.StringSliceVar(&within.Resources, "resource", nil, "a kind of things that it is narrowed to")
	flags.StringVar(&wish.Holder, "holder", "", "who may present it, such as /ns/prod/sa/web; without it, whoever has it")
	flags.DurationVar(&expires, "expires", 0, "how long it is good (default 24h, at most 2160h)")
	flags.StringVar(&bootstrap, "bootstrap", "", "the file with the token by which the first one is made")
	flags.StringVar(&wish.Description, "description", "", "what it is for")
	return cmd
}

func (c *ctl) createToken(ctx context.Context, wish tokenWish) error {
	var made struct {
		accessToken
		Token string `json:"token"`
	}
	if err := c.accessCall(ctx, request{doing: "token create", method: http.MethodPost, path: accessPath + "tokens", body: wish}, &made); err != nil {
		return err
	}
	if made.Token == "" {
		return &failure{doing: "token create", code: "unexpected_answer", exit: exitFailed, why: "the answer has no token in it"}
	}
	if err := c.show(view{whole: made, names: []string{made.ID}, line: made.Token}); err != nil {
		return err
	}
	by := made.Holder
	if by == "" {
		by = "whoever has it"
	}
	said := fmt.Sprintf("token %s with %s, for %s, good until %s; it is shown this once", made.ID, strings.Join(made.Roles, ", "), by, made.ExpiresAt)
	if made.Scope != nil {
		said += "\nnarrowed to " + made.Scope.String()
	}
	return printLine(c.stderr, "%s", said)
}

func (c *ctl) tokenListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the access tokens, without what makes them secret",
		Long: `list shows the access tokens that were made and not revoked: their roles, what
they are narrowed to, who may present them, and when they end. Those that have
ended are listed until their place is needed.`,
		Example: `  stellmapctl token list
  stellmapctl token list -o json | jq '.tokens[] | select(.holder == null)'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list := struct {
				Revision uint64        `json:"revision"`
				Tokens   []accessToken `json:"tokens"`
			}{Tokens: []accessToken{}}
			if err := c.accessCall(cmd.Context(), request{doing: "token list", method: http.MethodGet, path: accessPath + "tokens"}, &list); err != nil {
				return err
			}
			v := view{
				whole: list, items: []any{}, foot: revisionLine(list.Revision),
				columns: []column{{"ID", false}, {"ROLES", false}, {"SCOPE", false}, {"HOLDER", false}, {"EXPIRES", false}, {"GRANTED", true}, {"BY", true}, {"REVISION", true}, {"DESCRIPTION", false}},
			}
			for _, t := range list.Tokens {
				v.items, v.names = append(v.items, t), append(v.names, t.ID)
				v.rows = append(v.rows, []string{t.ID, strings.Join(t.Roles, ","), t.Scope.String(), t.Holder, c.whenOver(t.ExpiresAt), c.ageOf(t.GrantedAt), t.GrantedBy, fmt.Sprint(t.Revision), t.Description})
			}
			return c.show(v)
		},
	}
}

// whenOver says how long it is until something ends.
func (c *ctl) whenOver(at string) string {
	t, err := time.Parse(time.RFC3339, at)
	switch {
	case err != nil:
		return at
	case !c.now().Before(t):
		return "ended"
	}
	return "in " + age(t.Sub(c.now()))
}

func (c *ctl) tokenRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID...",
		Short: "End access tokens, and what was opened with them",
		Long: `revoke ends access tokens by their ids. What is open with one of them is ended
within seconds. Of several those before one that is not there are revoked.`,
		Example: `  stellmapctl token revoke 0badc0de0bad`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s wants the id of a token; stellmapctl token list shows them", nameOf(cmd))
			}
			for _, id := range args {
				if err := checkSegment("ID", id); err != nil {
					return err
				}
				if strings.HasPrefix(id, "smt_") {
					return usagef("ID: that is a token, not its id: the id is what is between the first two _")
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, id := range args {
				var done struct {
					ID       string `json:"id"`
					Revision uint64 `json:"revision"`
				}
				if err := c.accessCall(cmd.Context(), request{doing: "token revoke " + id, method: http.MethodDelete, path: accessPath + "tokens/" + url.PathEscape(id)}, &done); err != nil {
					return err
				}
				if err := c.show(view{whole: done, names: []string{id}, line: fmt.Sprintf("token %s is revoked   rev %d", id, done.Revision)}); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// accessCall is call for who may do what: where authentication is off that is said.
func (c *ctl) accessCall(ctx context.Context, r request, out any) error {
	off := false
	r.look = func(answer *http.Response) { off = answer.Header.Get("X-StellMap-Authentication") == "off" }
	if err := c.call(ctx, r, out); err != nil {
		return err
	}
	if off && !c.saidOff {
		c.saidOff = true
		return printLine(c.stderr, "authentication is off there: nothing is decided by roles, bindings and tokens")
	}
	return nil
}

// roleAdmin may do anything.
const roleAdmin = "system:admin"

// secretIn reads a token from a file of its own.
func secretIn(flag, file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", usagef("%s: %v", flag, err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", usagef("%s: %s holds no token, which is one word", flag, file)
	}
	return token, nil
}
