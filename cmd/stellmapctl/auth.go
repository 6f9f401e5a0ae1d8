package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

func (c *ctl) authCommand() *cobra.Command {
	auth := c.group(&cobra.Command{
		Use:   "auth",
		Short: "Who may do what, and why",
		Long: `auth tells who you are to the member that is asked, what you or others may do, and
by which rule. Roles say what may be done, and bindings who has them; both are
written with apply.`,
		Example: `  stellmapctl auth whoami
  stellmapctl auth can-i write policies -n prod --service orders
  stellmapctl auth explain read instances -n test --as /ns/prod/sa/web
  stellmapctl auth role list`,
	})
	auth.AddCommand(c.whoamiCommand(), c.canICommand(), c.explainAccessCommand(), c.accessDocumentCommand(kindRole), c.accessDocumentCommand(kindBinding))
	return auth
}

// givenRole is a role that somebody has, and what gives it to him.
type givenRole struct {
	Role string `json:"role"`
	By   string `json:"by"`
}

func rolesView(whole any, head string, roles []givenRole) view {
	v := view{whole: whole, head: head, columns: []column{{"ROLE", false}, {"BY", false}}}
	for _, r := range roles {
		v.names = append(v.names, r.Role)
		v.rows = append(v.rows, []string{r.Role, r.By})
	}
	if len(roles) == 0 {
		v.columns = nil
	}
	return v
}

func (c *ctl) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Who you are to the member that is asked, and which roles you have",
		Long: `whoami shows who you are to the member: whom your certificate names, or your
token, and which roles that has, by what.`,
		Example: `  stellmapctl auth whoami`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var me struct {
				Authentication string      `json:"authentication"`
				Who            string      `json:"who"`
				OwnNamespace   string      `json:"ownNamespace,omitempty"`
				Roles          []givenRole `json:"roles"`
			}
			if err := c.accessCall(cmd.Context(), request{doing: "auth whoami", method: http.MethodGet, path: accessPath + "whoami"}, &me); err != nil {
				return err
			}
			head := me.Who
			if me.OwnNamespace != "" {
				head += "   of namespace " + me.OwnNamespace
			}
			v := rolesView(me, head, me.Roles)
			if len(me.Roles) == 0 {
				v.head, v.line = "", head
			}
			return c.show(v)
		},
	}
}

// accessAsk is what somebody wants to do.
type accessAsk struct {
	Verb      string `json:"verb"`
	Resource  string `json:"resource"`
	Namespace string `json:"namespace,omitempty"`
	Service   string `json:"service,omitempty"`
	As        string `json:"as,omitempty"`
}

// askCommand completes a command that asks whether somebody may do something.
func (c *ctl) askCommand(cmd *cobra.Command, run func(context.Context, accessAsk) error) *cobra.Command {
	var ask accessAsk
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) != 2 {
			return usagef("%s wants a verb and a resource, such as: write policies", nameOf(cmd))
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ask.Verb, ask.Resource = args[0], args[1]
		return run(cmd.Context(), ask)
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return strings.Fields("read register renew deregister drain report override write"), cobra.ShellCompDirectiveNoFileComp
		case 1:
			return strings.Fields("instances services policies upstreams namespaces protections proxies leases regions members snapshots replication access tokens metrics debug"), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	flags := cmd.Flags()
	flags.StringVarP(&ask.Namespace, "namespace", "n", "", "in this namespace; none = in all of them, or of what is in none")
	flags.StringVar(&ask.Service, "service", "", "of this service; none = of all")
	flags.StringVar(&ask.As, "as", "", "for somebody else: /ns/prod/sa/web, a SPIFFE URI, or the id of a token")
	return cmd
}

func (c *ctl) canICommand() *cobra.Command {
	return c.askCommand(&cobra.Command{
		Use:   "can-i VERB RESOURCE",
		Short: "Whether you may do something, or somebody else",
		Long: `can-i says yes, with exit code 0, or no, with exit code 1. The verbs are read,
register, renew, deregister, drain, report, override and write. To ask for
somebody else, with --as, you have to be allowed to read access.`,
		Example: `  stellmapctl auth can-i read instances -n prod
  stellmapctl auth can-i write members
  stellmapctl auth can-i register instances -n prod --service orders --as /ns/prod/sa/orders`,
	}, func(ctx context.Context, ask accessAsk) error {
		var said struct {
			Authentication string `json:"authentication"`
			Who            string `json:"who"`
			Asks           string `json:"asks"`
			Allowed        bool   `json:"allowed"`
		}
		if err := c.accessCall(ctx, request{doing: "auth can-i", method: http.MethodPost, path: accessPath + "can-i", body: ask}, &said); err != nil {
			return err
		}
		if err := c.show(view{whole: said, names: []string{yesNo(said.Allowed)}, line: yesNo(said.Allowed)}); err != nil || said.Allowed {
			return err
		}
		return &failure{doing: "auth can-i", code: "no", exit: exitFailed, why: fmt.Sprintf("%s may not %s", said.Who, said.Asks), next: "stellmapctl auth explain says why"}
	})
}

func (c *ctl) explainAccessCommand() *cobra.Command {
	return c.askCommand(&cobra.Command{
		Use:   "explain VERB RESOURCE",
		Short: "By which rule you may do something or not, or somebody else",
		Long: `explain says which rule of which role allows or denies something, and what gives
that role. Where no rule does, it names those that allow the same elsewhere.`,
		Example: `  stellmapctl auth explain write policies -n prod --service orders
  stellmapctl auth explain read instances -n test --as /ns/prod/sa/web`,
	}, func(ctx context.Context, ask accessAsk) error {
		var said struct {
			Authentication string      `json:"authentication"`
			Who            string      `json:"who"`
			Asks           string      `json:"asks"`
			Roles          []givenRole `json:"roles"`
			Allowed        bool        `json:"allowed"`
			Reason         string      `json:"reason"`
			Role           string      `json:"role,omitempty"`
			Rule           int         `json:"rule,omitempty"`
			By             string      `json:"by,omitempty"`
			Near           []string    `json:"near,omitempty"`
		}
		if err := c.accessCall(ctx, request{doing: "auth explain", method: http.MethodPost, path: accessPath + "explain", body: ask}, &said); err != nil {
			return err
		}
		v := rolesView(said, said.Reason, said.Roles)
		v.notes = said.Near
		if len(said.Roles) == 0 {
			v.head, v.line = "", said.Reason
		}
		return c.show(v)
	})
}

// The kinds of documents of access, by which their paths are called, too.
const (
	kindRole    = "role"
	kindBinding = "binding"
)

func accessDocumentPath(kind, name string) string {
	return accessPath + kind + "s/" + url.PathEscape(name)
}

// accessDocumentCommand is for roles, or for bindings.
func (c *ctl) accessDocumentCommand(kind string) *cobra.Command {
	says := map[string]string{kindRole: "Roles: what those may do who have them", kindBinding: "Bindings: who has which roles"}[kind]
	group := c.group(&cobra.Command{
		Use:   kind,
		Short: says,
		Long: fmt.Sprintf(`%s lists, shows and takes back %ss. stellmapctl apply writes one. Those whose
names begin with system: are built in.`, kind, kind),
		Example: fmt.Sprintf(`  stellmapctl auth %[1]s list
  stellmapctl auth %[1]s get orders-team -o yaml > orders-team.yaml   # edit it, then:
  stellmapctl apply -f orders-team.yaml
  stellmapctl auth %[1]s delete orders-team`, kind),
	})
	group.AddCommand(c.accessListCommand(kind), c.accessGetCommand(kind), c.accessDeleteCommand(kind))
	return group
}

func oneName(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("%s wants one name", nameOf(cmd))
	}
	return checkSegment("NAME", args[0])
}

// accessItem is a role or a binding in a list.
type accessItem struct {
	Name    string          `json:"name"`
	BuiltIn bool            `json:"builtIn"`
	Version uint64          `json:"version"`
	Role    json.RawMessage `json:"role,omitempty"`
	Binding json.RawMessage `json:"binding,omitempty"`
}

func (i *accessItem) says() string {
	var said struct {
		Description string            `json:"description"`
		Rules       []json.RawMessage `json:"rules"`
		Roles       []string          `json:"roles"`
		Subjects    []string          `json:"subjects"`
	}
	if json.Unmarshal(append(i.Role[:len(i.Role):len(i.Role)], i.Binding...), &said) != nil {
		return ""
	}
	text := strings.Join(said.Roles, ",") + " to " + strings.Join(said.Subjects, ",")
	if len(i.Role) > 0 {
		text = count(len(said.Rules), "rule")
	}
	if said.Description != "" {
		text += ": " + said.Description
	}
	return text
}

func (c *ctl) accessListCommand(kind string) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List them all",
		Long:    fmt.Sprintf(`list shows all %ss, those that are built in included.`, kind),
		Example: fmt.Sprintf(`  stellmapctl auth %[1]s list
  stellmapctl auth %[1]s list -o name`, kind),
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list struct {
				Revision uint64       `json:"revision"`
				Roles    []accessItem `json:"roles,omitempty"`
				Bindings []accessItem `json:"bindings,omitempty"`
			}
			if err := c.accessCall(cmd.Context(), request{doing: "auth " + kind + " list", method: http.MethodGet, path: accessPath + kind + "s"}, &list); err != nil {
				return err
			}
			v := view{whole: list, items: []any{}, columns: []column{{"NAME", false}, {"VERSION", false}, {"SAYS", false}}, foot: revisionLine(list.Revision)}
			for _, one := range append(list.Roles, list.Bindings...) {
				version := fmt.Sprint(one.Version)
				if one.BuiltIn {
					version = "built in"
				}
				v.items, v.names = append(v.items, one), append(v.names, one.Name)
				v.rows = append(v.rows, []string{one.Name, version, one.says()})
			}
			return c.show(v)
		},
	}
}

func (c *ctl) accessGetCommand(kind string) *cobra.Command {
	var history bool
	cmd := &cobra.Command{
		Use:   "get NAME",
		Short: "Show one, or how it came about",
		Long: fmt.Sprintf(`get shows a %s, and with --history its last edits: who made them, when, and what
they changed. In YAML or JSON it is a document that apply takes.`, kind),
		Example: fmt.Sprintf(`  stellmapctl auth %[1]s get orders-team
  stellmapctl auth %[1]s get orders-team --history`, kind),
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			d := document{Kind: kind, Name: args[0]}
			if history {
				return c.showHistory(cmd.Context(), &d)
			}
			return c.showDocument(cmd.Context(), &d)
		},
	}
	cmd.Flags().BoolVar(&history, "history", false, "its last edits, the newest first")
	return cmd
}

func (c *ctl) accessDeleteCommand(kind string) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Take one back",
		Long: fmt.Sprintf(`delete takes a %s back: nobody has anything by it any more. What its rules deny
is denied no more, either, and so that takes somebody whom nobody denies it.`, kind),
		Example: fmt.Sprintf(`  stellmapctl auth %[1]s delete orders-team --dry-run
  stellmapctl auth %[1]s delete orders-team`, kind),
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			d := &document{Kind: kind, Name: args[0]}
			r := request{doing: "delete " + d.String(), method: http.MethodDelete, path: d.path()}
			if dryRun {
				r.path += "?dryRun=true"
			}
			result := applied{Kind: kind}
			if err := c.accessCall(cmd.Context(), r, &result); err != nil {
				return err
			}
			line := fmt.Sprintf("%s is deleted   version %d   rev %d", d, result.Version, result.Revision)
			switch {
			case !result.Changed:
				line = fmt.Sprintf("there is no %s: nothing was done", d)
			case dryRun:
				line = fmt.Sprintf("%s would be deleted: %s", d, changesText(result.Changes))
			}
			return c.show(view{whole: result, names: []string{d.String()}, line: line})
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would change, and change nothing")
	return cmd
}
