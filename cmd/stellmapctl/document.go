package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// The bounds of what is applied at once.
const (
	applyBytesMax     = 16 << 20
	applyDocumentsMax = 1_000
)

// The kinds of documents.
const (
	kindPolicy    = "policy"
	kindUpstreams = "upstreams"
	kindNamespace = "namespace"
)

// A document is a policy, what a service calls, what is written down of a namespace, a
// role or a binding, in the form that apply reads and get prints. It says what shall be, whole.
type document struct {
	Kind      string         `json:"kind" yaml:"kind"`
	Namespace string         `json:"namespace,omitempty" yaml:"namespace"`
	Service   string         `json:"service,omitempty" yaml:"service"`
	Name      string         `json:"name,omitempty" yaml:"name"`       // of a role or a binding
	Version   *uint64        `json:"version,omitempty" yaml:"version"` // that the edit is for; nil = whatever is there
	ChangedAt string         `json:"changedAt,omitempty" yaml:"changedAt"`
	ChangedBy string         `json:"changedBy,omitempty" yaml:"changedBy"`
	Policy    map[string]any `json:"policy,omitempty" yaml:"policy"`
	Upstreams map[string]any `json:"upstreams,omitempty" yaml:"upstreams"`
	Document  map[string]any `json:"document,omitempty" yaml:"document"`
	Role      map[string]any `json:"role,omitempty" yaml:"role"`
	Binding   map[string]any `json:"binding,omitempty" yaml:"binding"`
}

// ofAccess says whether it is of the whole cluster, and has a name.
func (d *document) ofAccess() bool { return d.Kind == kindRole || d.Kind == kindBinding }

// ofService says whether it is one of the documents of services, whose kind is also
// the end of their path and the name of what they say.
func (d *document) ofService() bool { return d.Kind == kindPolicy || d.Kind == kindUpstreams }

// String names it as -o name does.
func (d *document) String() string {
	if d.ofService() {
		return d.Kind + "/" + d.Namespace + "/" + d.Service
	}
	if d.ofAccess() {
		return d.Kind + "/" + d.Name
	}
	return "namespace/" + d.Namespace
}

func (d *document) path() string {
	if d.ofService() {
		return documentPath(d.Kind, d.Namespace, d.Service)
	}
	if d.ofAccess() {
		return accessDocumentPath(d.Kind, d.Name)
	}
	return namespacePath(d.Namespace)
}

func documentPath(kind, namespace, service string) string {
	return strings.TrimSuffix(instanceRef{namespace: namespace, service: service}.path(), "/instances") + "/" + kind
}

// content is what is sent.
func (d *document) content() map[string]any {
	return *d.said()[d.Kind]
}

// said is what the document says, by the kinds that would say it there.
func (d *document) said() map[string]*map[string]any {
	return map[string]*map[string]any{kindPolicy: &d.Policy, kindUpstreams: &d.Upstreams, kindNamespace: &d.Document, kindRole: &d.Role, kindBinding: &d.Binding}
}

// misplaced says whether it says something in the place of another kind, or nothing in that of its own.
func (d *document) misplaced() bool {
	for kind, content := range d.said() {
		if (*content != nil) != (kind == d.Kind) {
			return true
		}
	}
	return false
}

// problem says what is wrong with the frame of a document; what is in it is the server's to say.
func (d *document) problem() string {
	switch {
	case d.said()[d.Kind] == nil:
		return fmt.Sprintf("kind: %q is not %s, %s, %s, %s or %s", d.Kind, kindPolicy, kindUpstreams, kindNamespace, kindRole, kindBinding)
	case d.ofAccess():
		return d.problemOfAccess()
	case d.Name != "":
		return "name: only a role and a binding have one"
	case strings.TrimSpace(d.Namespace) == "":
		return "namespace: is missing"
	case d.ofService() && strings.TrimSpace(d.Service) == "":
		return "service: is missing"
	case d.Kind == kindPolicy && d.misplaced():
		return "policy: what the policy says stands under policy"
	case d.Kind == kindUpstreams && d.misplaced():
		return "upstreams: what the service wants to call, and may, stands under upstreams"
	case d.Kind == kindNamespace && (d.misplaced() || d.Service != ""):
		return "document: what is written down of a namespace stands under document, and has no service"
	}
	return ""
}

func (d *document) problemOfAccess() string {
	switch {
	case strings.TrimSpace(d.Name) == "":
		return "name: is missing"
	case d.misplaced() || d.Namespace != "" || d.Service != "":
		return fmt.Sprintf("%s: what it says stands under %s, and it is of no namespace and no service", d.Kind, d.Kind)
	}
	return ""
}

func (c *ctl) applyCommand() *cobra.Command {
	var file string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Write policies of services, what they call, what a namespace may hold, roles and bindings",
		Long: `apply writes the documents of a file, in YAML with --- between them, or in JSON;
- is stdin. A document is whole: what is not in it is the default. It looks as
get policy -o yaml prints it:

  kind: policy
  namespace: prod
  service: orders
  version: 3            # only if this is still the version; may be left out
  policy:
    protectThreshold: 0.5
  ---
  kind: upstreams
  namespace: prod
  service: shop
  upstreams:
    wants: [orders.prod]
    may: ["*.prod"]
  ---
  kind: namespace
  namespace: prod
  document:
    quota: {instances: 200}
  ---
  kind: role
  name: orders-team
  role:
    rules: [{verbs: [read, write], resources: [policies], namespaces: [prod], services: ["orders*"]}]
  ---
  kind: binding
  name: orders-team
  binding: {roles: [orders-team, "system:reader"], subjects: [/operator/ann]}

All of them are checked by the server first: of a file with a mistake nothing is
written. --dry-run stops there and shows what would change. Should somebody else
edit one in between, those before it are written, and the exit code is 6.`,
		Example: `  stellmapctl apply -f policies.yaml --dry-run
  stellmapctl get policy orders -o yaml > orders.yaml   # edit it, then:
  stellmapctl apply -f orders.yaml`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			documents, err := readDocuments(file, cmd.InOrStdin())
			if err != nil {
				return err
			}
			return c.apply(cmd.Context(), documents, dryRun)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the file, - for stdin")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would change, and change nothing")
	return cmd
}

// readDocuments reads a file whole and finds what is wrong with it before anybody is asked.
func readDocuments(file string, stdin io.Reader) ([]*document, error) {
	if file == "" {
		return nil, usagef("-f: is missing, such as -f policies.yaml")
	}
	in := stdin
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, usagef("-f: %v", err)
		}
		defer opened.Close()
		in = opened
	}
	text, err := io.ReadAll(io.LimitReader(in, applyBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(text) > applyBytesMax {
		return nil, usagef("-f: %s has more than %d bytes", file, applyBytesMax)
	}
	return parseDocuments(file, text)
}

func parseDocuments(file string, text []byte) ([]*document, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text)) // JSON is YAML, too
	decoder.KnownFields(true)
	var all []*document
	for {
		d := &document{}
		err := decoder.Decode(d)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, usagef("%s: document %d: %s", file, len(all)+1, unreadable(err))
		}
		if problem := d.problem(); problem != "" {
			return nil, usagef("%s: document %d: %s", file, len(all)+1, problem)
		}
		if all = append(all, d); len(all) > applyDocumentsMax {
			return nil, usagef("%s: has more than %d documents", file, applyDocumentsMax)
		}
	}
	if len(all) == 0 {
		return nil, usagef("%s: has no document", file)
	}
	return all, nil
}

// unreadable says what is wrong with a file, in words that do not name our types.
func unreadable(err error) string {
	text := err.Error()
	var wrong *yaml.TypeError
	if errors.As(err, &wrong) {
		text = strings.Join(wrong.Errors, "; ")
	}
	return strings.ReplaceAll(text, "not found in type main.document", "is not known: kind, namespace, service, name, version, policy, upstreams, document, role or binding")
}

// applied is what became of a document.
type applied struct {
	Kind      string        `json:"kind"`
	Namespace string        `json:"namespace,omitempty"`
	Service   string        `json:"service,omitempty"`
	Name      string        `json:"name,omitempty"`
	DryRun    bool          `json:"dryRun,omitempty"`
	Version   uint64        `json:"version"`
	Revision  uint64        `json:"revision"`
	Created   bool          `json:"created"`
	Changed   bool          `json:"changed"`
	Changes   []fieldChange `json:"changes"`
}

// fieldChange is a field that two versions differ in; what was not given is empty.
type fieldChange struct {
	Field  string          `json:"field"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

func (f fieldChange) String() string {
	word := func(value json.RawMessage) string {
		if value == nil {
			return "-"
		}
		return string(value)
	}
	return f.Field + " " + word(f.Before) + " -> " + word(f.After)
}

func changesText(changes []fieldChange) string {
	texts := make([]string, len(changes))
	for i, one := range changes {
		texts[i] = one.String()
	}
	return strings.Join(texts, ", ")
}

// apply has all documents checked, and then written.
func (c *ctl) apply(ctx context.Context, documents []*document, dryRun bool) error {
	results, err := c.writeAll(ctx, documents, true)
	if err != nil {
		return err
	}
	if !dryRun {
		results, err = c.writeAll(ctx, documents, false)
	}
	if len(results) > 0 { // what was written is told, whatever came then
		err = errors.Join(err, c.show(appliedView(documents, results)))
	}
	return err
}

func (c *ctl) writeAll(ctx context.Context, documents []*document, dryRun bool) ([]applied, error) {
	var out []applied
	for _, d := range documents {
		result := applied{Kind: d.Kind}
		r := request{doing: "apply " + d.String(), method: http.MethodPut, path: d.path(), body: d.content(), version: d.Version}
		if dryRun {
			r.doing, r.path = "check "+d.String(), r.path+"?dryRun=true"
		}
		call := c.call
		if d.ofAccess() {
			call = c.accessCall
		}
		if err := call(ctx, r, &result); err != nil {
			return out, err
		}
		out = append(out, result)
	}
	return out, nil
}

func appliedView(documents []*document, results []applied) view {
	v := view{
		whole: struct {
			Results []applied `json:"results"`
		}{results},
		columns: []column{{"KIND", false}, {"NAMESPACE", false}, {"SERVICE", false}, {"VERSION", false}, {"OUTCOME", false}, {"CHANGES", false}},
	}
	for i, one := range results {
		outcome := "unchanged"
		switch {
		case one.Created:
			outcome = "created"
		case one.Changed:
			outcome = "changed"
		}
		if one.DryRun && one.Changed {
			outcome = "would be " + outcome
		}
		v.items = append(v.items, one)
		v.names = append(v.names, documents[i].String())
		v.rows = append(v.rows, []string{one.Kind, one.Namespace, cmp.Or(one.Service, one.Name), fmt.Sprint(one.Version), outcome, changesText(one.Changes)})
	}
	return v
}

func (c *ctl) getPolicyCommand() *cobra.Command {
	return c.getDocumentCommand(kindPolicy, &cobra.Command{
		Use:   "policy SERVICE",
		Short: "Show the policy of a service, or how it came about",
		Long: `policy shows how a service is to be treated, where that is not by default, and
with --history the last edits: who made them, when, and what they changed. In
YAML or JSON it is a document that apply takes. No policy is exit code 3.`,
		Example: `  stellmapctl get policy orders -n prod
  stellmapctl get policy orders -o yaml > orders.yaml
  stellmapctl get policy orders --history`,
	})
}

func (c *ctl) getUpstreamsCommand() *cobra.Command {
	return c.getDocumentCommand(kindUpstreams, &cobra.Command{
		Use:   "upstreams SERVICE",
		Short: "Show what a service wants to call, and may, or how that came about",
		Long: `upstreams shows what is written down of what a service calls: wants takes the place
of what its proxies declare, and may bounds it. With --history it shows the last
edits. In YAML or JSON it is a document that apply takes. Where nothing is written
down the exit code is 3.`,
		Example: `  stellmapctl get upstreams shop -n prod
  stellmapctl get upstreams shop -o yaml > shop.yaml
  stellmapctl get upstreams shop --history`,
	})
}

// getDocumentCommand completes a command that shows a document of a service.
func (c *ctl) getDocumentCommand(kind string, cmd *cobra.Command) *cobra.Command {
	var ref instanceRef
	var history bool
	cmd.Args = oneService
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, part := range []struct{ flag, text string }{{"SERVICE", args[0]}, {"--namespace", ref.namespace}} {
			if err := checkSegment(part.flag, part.text); err != nil {
				return err
			}
		}
		d := document{Kind: kind, Namespace: ref.namespace, Service: args[0]}
		if history {
			return c.showHistory(cmd.Context(), &d)
		}
		return c.showDocument(cmd.Context(), &d)
	}
	namespaceFlag(cmd.Flags(), &ref.namespace)
	cmd.Flags().BoolVar(&history, "history", false, "its last edits, the newest first")
	return cmd
}

// showDocument reads the document that has this kind and these names, and shows it.
func (c *ctl) showDocument(ctx context.Context, of *document) error {
	var found struct {
		document
		BuiltIn   bool            `json:"builtIn"`
		Policy    json.RawMessage `json:"policy"`
		Upstreams json.RawMessage `json:"upstreams"`
		Role      json.RawMessage `json:"role"`
		Binding   json.RawMessage `json:"binding"`
	}
	if err := c.call(ctx, request{doing: "get " + of.about(), method: http.MethodGet, path: of.path()}, &found); err != nil {
		return err
	}
	d := found.document
	d.Kind = of.Kind
	said := cmp.Or(string(found.Policy), string(found.Upstreams), string(found.Role), string(found.Binding))
	if err := json.Unmarshal([]byte(said), d.said()[d.Kind]); err != nil {
		return fmt.Errorf("read %s: %w", &d, err)
	}
	v := view{whole: d, names: []string{d.String()}, columns: []column{{"FIELD", false}, {"VALUE", false}}}
	for _, field := range fieldsIn(json.RawMessage(said)) {
		v.rows = append(v.rows, []string{field.Field, string(field.After)})
	}
	v.foot = fmt.Sprintf("version %d, changed %s ago by %s", *d.Version, c.ageOf(d.ChangedAt), d.ChangedBy)
	if found.BuiltIn {
		v.foot = "built in"
	}
	return c.show(v)
}

// about names a document as a command line does.
func (d *document) about() string {
	if d.ofAccess() {
		return d.Kind + " " + d.Name
	}
	return d.Kind + " " + d.Namespace + "/" + d.Service
}

// edit is one version of a document.
type edit struct {
	Version  uint64          `json:"version"`
	Revision uint64          `json:"revision"`
	At       string          `json:"at"`
	By       string          `json:"by"`
	Deleted  bool            `json:"deleted,omitempty"`
	Changes  []fieldChange   `json:"changes,omitempty"`
	Document json.RawMessage `json:"document,omitempty"`
}

func (c *ctl) showHistory(ctx context.Context, of *document) error {
	var found struct {
		Namespace string `json:"namespace,omitempty"`
		Service   string `json:"service,omitempty"`
		Name      string `json:"name,omitempty"`
		History   []edit `json:"history"`
	}
	r := request{doing: "get " + of.about(), method: http.MethodGet, path: of.path() + "/history"}
	if err := c.call(ctx, r, &found); err != nil {
		return err
	}
	v := view{whole: found, columns: []column{{"VERSION", false}, {"AGO", false}, {"BY", false}, {"REVISION", true}, {"CHANGES", false}}}
	for _, e := range found.History {
		changes := changesText(e.Changes)
		if e.Deleted {
			changes = "deleted: " + changes
		}
		v.items = append(v.items, e)
		v.names = append(v.names, fmt.Sprint(e.Version))
		v.rows = append(v.rows, []string{fmt.Sprint(e.Version), c.ageOf(e.At), e.By, fmt.Sprint(e.Revision), changes})
	}
	return c.show(v)
}

// fieldsIn are the fields of a document with their paths, sorted.
func fieldsIn(document json.RawMessage) []fieldChange {
	return fieldsBelow("", document)
}

func fieldsBelow(at string, value json.RawMessage) []fieldChange {
	var inside map[string]json.RawMessage
	if json.Unmarshal(value, &inside) != nil {
		return []fieldChange{{Field: at, After: value}}
	}
	var out []fieldChange
	for _, name := range slices.Sorted(maps.Keys(inside)) {
		path := name
		if at != "" {
			path = at + "." + name
		}
		out = append(out, fieldsBelow(path, inside[name])...)
	}
	return out
}
