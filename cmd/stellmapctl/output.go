package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// format is a value of -o.
type format string

const (
	formatTable format = "table"
	formatWide  format = "wide"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
	formatJSONL format = "jsonl"
	formatName  format = "name"
)

var formats = []format{formatTable, formatWide, formatJSON, formatYAML, formatJSONL, formatName}

func texts(of []format) []string {
	out := make([]string, len(of))
	for i, f := range of {
		out[i] = string(f)
	}
	return out
}

func oneOf(of []format) string { return strings.Join(texts(of), ", ") }

// wantedFormat finds -o in a command line that could not be read as a whole,
// so that the error about it comes in the wanted form, too.
func wantedFormat(args []string) format {
	for i, arg := range args {
		for _, prefix := range []string{"--output=", "-o="} {
			if value, ok := strings.CutPrefix(arg, prefix); ok {
				return format(value)
			}
		}
		if (arg == "-o" || arg == "--output") && i+1 < len(args) {
			return format(args[i+1])
		}
		if value, ok := strings.CutPrefix(arg, "-o"); ok {
			return format(value)
		}
	}
	return formatTable
}

// A view is one answer in every form that -o knows.
type view struct {
	whole any      // json and yaml; jsonl too where items is nil
	items []any    // jsonl, one line each
	names []string // name, one line each

	line  string // table and wide: all there is to say, in place of a table
	parts []view // table and wide: others below

	head    string // table and wide: a line above
	columns []column
	rows    [][]string // one cell for each column
	notes   []string   // lines below
	foot    string     // the last
}

// column is one of a table. Its place never changes, so that scripts can count.
type column struct {
	title string
	wide  bool // shown with -o wide only
}

// show prints a view as -o says.
func (c *ctl) show(v view) error {
	text, err := v.render(c.output, c.noHeaders)
	if err != nil {
		return fmt.Errorf("print as %s: %w", c.output, err)
	}
	if _, err := c.stdout.Write(text); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func (v view) render(as format, noHeaders bool) ([]byte, error) {
	switch as {
	case formatJSON:
		return asJSON(v.whole, "  ")
	case formatYAML:
		return asYAML(v.whole)
	case formatJSONL:
		return v.lines()
	case formatName:
		return []byte(strings.Join(append(v.names, ""), "\n")), nil
	default:
		return v.tables(as == formatWide, noHeaders)
	}
}

// tables are the view's own and its parts'.
func (v view) tables(wide, bare bool) ([]byte, error) {
	all, err := v.table(wide, bare)
	for _, part := range v.parts {
		below, wrong := part.table(wide, bare)
		all, err = append(all, below...), errors.Join(err, wrong)
	}
	return all, err
}

func (v view) lines() ([]byte, error) {
	if v.items == nil {
		return asJSON(v.whole, "")
	}
	var all []byte
	for _, item := range v.items {
		line, err := asJSON(item, "")
		if err != nil {
			return nil, err
		}
		all = append(all, line...)
	}
	return all, nil
}

func (v view) table(wide, bare bool) ([]byte, error) {
	var b bytes.Buffer
	if v.line != "" {
		fmt.Fprintln(&b, printable(v.line))
	}
	if v.head != "" && !bare {
		fmt.Fprintln(&b, printable(v.head))
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if titles := v.cells(v.titles(), wide); len(titles) > 0 && !bare {
		fmt.Fprintln(w, strings.Join(titles, "\t"))
	}
	for _, row := range v.rows {
		fmt.Fprintln(w, strings.Join(v.cells(row, wide), "\t"))
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	for _, note := range v.notes {
		if !bare {
			fmt.Fprintln(&b, printable(note))
		}
	}
	if v.foot != "" && !bare {
		fmt.Fprintln(&b, printable(v.foot))
	}
	return b.Bytes(), nil
}

func (v view) titles() []string {
	out := make([]string, len(v.columns))
	for i, c := range v.columns {
		out[i] = c.title
	}
	return out
}

// cells are the shown ones of a row. An empty one is a dash, since scripts count
// columns by the spaces between them.
func (v view) cells(row []string, wide bool) []string {
	var out []string
	for i, c := range v.columns {
		if c.wide && !wide {
			continue
		}
		text := printable(row[i])
		if text == "" {
			text = "-"
		}
		out = append(out, text)
	}
	return out
}

// printable escapes what would move the cursor or break a line: part of what is
// shown was written by whoever registered.
func printable(s string) string {
	if !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unprintable(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

func asJSON(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	err := e.Encode(v)
	return b.Bytes(), err
}

// asYAML goes by way of JSON, which is YAML already: so names and their order
// stand in one place, the json tags, and only the style is changed.
func asYAML(v any) ([]byte, error) {
	encoded, err := asJSON(v, "")
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(encoded, &document); err != nil {
		return nil, err
	}
	inBlocks(&document)
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&document); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// inBlocks lets the encoder choose how to write each value; it quotes what would
// otherwise be read as something else by YAML 1.2.
func inBlocks(n *yaml.Node) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!str" && otherwiseRead.MatchString(n.Value):
		n.Style = yaml.DoubleQuotedStyle
	case len(n.Content) > 0 || n.Kind == yaml.ScalarNode: // {} and [] have no other form
		n.Style = 0
	}
	for _, below := range n.Content {
		inBlocks(below)
	}
}

// otherwiseRead is what many read as something else all the same: a truth value or a
// number of base 60 in YAML 1.1, and a name that merges.
var otherwiseRead = regexp.MustCompile(`^([yY]|[yY]es|YES|[nN]|[nN]o|NO|[oO]n|ON|[oO]ff|OFF|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|<<)$`)

// age is how long ago something was, in at most two units. A clock that is
// behind the server's makes it 0.
func age(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 60*60:
		return fmt.Sprintf("%dm%ds", s/60, s%60)
	case s < 24*60*60:
		return fmt.Sprintf("%dh%dm", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%dd%dh", s/86400, s/3600%24)
	}
}

// ageOf is the age of a time as the server wrote it, "" where it wrote none.
func (c *ctl) ageOf(at string) string {
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return at // better shown as it is than not at all
	}
	return age(c.now().Sub(t))
}

// seconds is a lease for people.
func seconds(n int64) string { return fmt.Sprintf("%d s", n) }

// printLine writes to a stream that a person reads.
func printLine(w io.Writer, format string, args ...any) error {
	if _, err := fmt.Fprintf(w, format+"\n", args...); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
