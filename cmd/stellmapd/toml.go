package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// tomlFile is where the keys of a file stand. go-toml decodes values and
// viper merges them; neither says where a value came from, so the file is
// walked once more for line and column.
type tomlFile struct {
	keys    []tomlKey            // every key and table head, in order
	twice   []tomlKey            // those that had been there before
	values  map[string]tomlValue // scalars by full key: cluster.members[0].id
	members []position           // the [[cluster.members]] heads
	regions []position           // the [[federation.regions]] heads
}

// position counts from 1.
type position struct{ line, column int }

type tomlKey struct {
	name string // full, with [n] for lists of tables
	pos  position
}

type tomlValue struct {
	pos  position
	kind unstable.Kind
	text string // as written, without quotes
	what string // for messages: `the text "abc"`, `the number 7`
}

// tomlError is a syntax error and its place.
type tomlError struct {
	pos    position
	reason string
}

func (e *tomlError) Error() string {
	return fmt.Sprintf("%d:%d: %s", e.pos.line, e.pos.column, e.reason)
}

// wrong tells whether the value's type does not suit the setting.
func (v tomlValue) wrong(k kind) bool {
	if k == kindID || k == kindCount || k == kindPercent {
		return v.kind != unstable.Integer
	}
	if k == kindRatio {
		return v.kind != unstable.Integer && v.kind != unstable.Float
	}
	if k == kindRoom {
		return v.kind != unstable.Integer && v.kind != unstable.String
	}
	if k == kindJoin || k == kindPrefixes || k == kindSelections {
		return v.kind != unstable.Array
	}
	return v.kind != unstable.String
}

// parseTOML walks the file.
func parseTOML(data []byte) (tomlFile, error) {
	f := tomlFile{values: make(map[string]tomlValue)}
	p := &unstable.Parser{}
	p.Reset(data)
	tables := make(map[string]int) // lists of tables: how many so far
	section := ""
	for p.NextExpression() {
		n := p.Expression()
		name, pos := keyOf(p, n)
		switch n.Kind {
		case unstable.Table:
			section = name + "."
			f.note(name, pos)
		case unstable.ArrayTable:
			if name == membersKey {
				f.members = append(f.members, pos)
			}
			if name == regionsKey {
				f.regions = append(f.regions, pos)
			}
			f.keys = append(f.keys, tomlKey{name, pos})
			section = fmt.Sprintf("%s[%d].", name, tables[name])
			tables[name]++
		case unstable.KeyValue:
			f.add(p, section+name, pos, n.Value())
		}
	}
	return f, syntaxError(p, data)
}

// note keeps a key or a table head, of which a file has each only once.
func (f *tomlFile) note(name string, pos position) {
	for _, k := range f.keys {
		if k.name == name {
			f.twice = append(f.twice, tomlKey{name, pos})
			return
		}
	}
	f.keys = append(f.keys, tomlKey{name, pos})
}

// add notes one key and its value; an inline table is looked into.
func (f *tomlFile) add(p *unstable.Parser, name string, pos position, value *unstable.Node) {
	f.note(name, pos)
	if value.Kind == unstable.InlineTable {
		for it := value.Children(); it.Next(); {
			inner, at := keyOf(p, it.Node())
			f.add(p, name+"."+inner, at, it.Node().Value())
		}
		return
	}
	text := string(value.Data)
	f.values[name] = tomlValue{pos: pos, kind: value.Kind, text: text, what: describe(value.Kind, text)}
}

func describe(k unstable.Kind, text string) string {
	switch k {
	case unstable.String:
		return fmt.Sprintf("the text %q", text)
	case unstable.Integer, unstable.Float:
		return "the number " + text
	case unstable.Bool:
		return text
	case unstable.Array:
		return "a list"
	default:
		return "a date or a time"
	}
}

// keyOf is the dotted key of a table head or an assignment and where it begins.
func keyOf(p *unstable.Parser, n *unstable.Node) (string, position) {
	var parts []string
	var pos position
	for it := n.Key(); it.Next(); {
		k := it.Node()
		if len(parts) == 0 {
			start := p.Shape(k.Raw).Start
			pos = position{start.Line, start.Column}
		}
		parts = append(parts, string(k.Data))
	}
	return strings.Join(parts, "."), pos
}

// huge are the keys whose number no decoder of TOML takes, in the order of the file.
func (f *tomlFile) huge() []string {
	var keys []string
	for _, k := range f.keys {
		v := f.values[k.name]
		if _, err := strconv.ParseInt(v.text, 0, 64); v.kind == unstable.Integer && errors.Is(err, strconv.ErrRange) {
			keys = append(keys, k.name)
		}
	}
	return keys
}

func syntaxError(p *unstable.Parser, data []byte) error {
	err := p.Error()
	if err == nil {
		return nil
	}
	var at *unstable.ParserError
	pos := position{1, 1}
	if errors.As(err, &at) && len(at.Highlight) > 0 {
		start := p.Shape(p.Range(at.Highlight)).Start
		pos = position{start.Line, start.Column}
	} else {
		pos.line += strings.Count(strings.TrimRight(string(data), "\n"), "\n")
	}
	return &tomlError{pos, strings.TrimPrefix(err.Error(), "toml: ")}
}
