package registry

import (
	"fmt"
	"slices"
	"strings"
)

// selectorForms is what an error shows to whoever wrote a selector wrong.
const selectorForms = "the forms are key, !key, key=value, key==value, key!=value, key in (a,b), key notin (a,b), joined by commas"

// A requirement is one term of a label selector.
type requirement struct {
	key    string
	op     selectorOp
	values []string
}

type selectorOp uint8

const (
	selectorExists selectorOp = iota
	selectorMissing
	selectorIn
	selectorNotIn // an absent key matches too
)

func (q requirement) matches(labels Pairs) bool {
	value, ok := labels.Get(q.key)
	switch q.op {
	case selectorExists:
		return ok
	case selectorMissing:
		return !ok
	case selectorIn:
		return ok && slices.Contains(q.values, value)
	}
	return !ok || !slices.Contains(q.values, value)
}

// parseSelector reads a label selector. A value reaches to the next comma, so
// that it may hold spaces, parentheses and the word "in".
func parseSelector(text string) ([]requirement, error) {
	var out []requirement
	p := &selectorParser{text: text}
	for {
		one, err := p.requirement()
		if err != nil {
			return nil, err
		}
		out = append(out, one)
		if p.spaces(); p.at == len(p.text) {
			return out, nil
		}
		if !p.take(",") {
			return nil, p.wrong("a comma or the end")
		}
	}
}

type selectorParser struct {
	text string
	at   int
}

func (p *selectorParser) requirement() (requirement, error) {
	p.spaces()
	missing := p.take("!")
	p.spaces()
	key := p.word()
	if key == "" {
		return requirement{}, p.wrong("a label key")
	}
	p.spaces()
	switch {
	case missing:
		return requirement{key: key, op: selectorMissing}, nil
	case p.take("!="):
		return requirement{key: key, op: selectorNotIn, values: []string{p.value()}}, nil
	case p.take("=="), p.take("="):
		return requirement{key: key, op: selectorIn, values: []string{p.value()}}, nil
	case p.takeWord("in"):
		return p.set(key, selectorIn)
	case p.takeWord("notin"):
		return p.set(key, selectorNotIn)
	}
	return requirement{key: key, op: selectorExists}, nil
}

// set reads the values in parentheses.
func (p *selectorParser) set(key string, op selectorOp) (requirement, error) {
	if p.spaces(); !p.take("(") {
		return requirement{}, p.wrong(`"("`)
	}
	length := strings.IndexByte(p.text[p.at:], ')')
	if length < 0 {
		return requirement{}, fmt.Errorf(`the "(" in column %d is never closed: %s`, p.at, selectorForms)
	}
	inside := p.text[p.at : p.at+length]
	if strings.TrimSpace(inside) == "" {
		return requirement{}, p.wrong("a value")
	}
	p.at += length + 1
	values := strings.Split(inside, ",")
	for i := range values {
		values[i] = strings.TrimSpace(values[i])
	}
	slices.Sort(values)
	values = slices.Compact(values) // the index counts
	return requirement{key: key, op: op, values: values}, nil
}

func (p *selectorParser) spaces() {
	for p.at < len(p.text) && (p.text[p.at] == ' ' || p.text[p.at] == '\t') {
		p.at++
	}
}

func (p *selectorParser) take(mark string) bool {
	if !strings.HasPrefix(p.text[p.at:], mark) {
		return false
	}
	p.at += len(mark)
	return true
}

// word reads up to a space or a mark.
func (p *selectorParser) word() string {
	rest := p.text[p.at:]
	if end := strings.IndexAny(rest, " \t,()=!"); end >= 0 {
		rest = rest[:end]
	}
	p.at += len(rest)
	return rest
}

func (p *selectorParser) takeWord(word string) bool {
	before := p.at
	if p.word() == word {
		return true
	}
	p.at = before
	return false
}

// value reads up to the next comma.
func (p *selectorParser) value() string {
	rest := p.text[p.at:]
	if end := strings.IndexByte(rest, ','); end >= 0 {
		rest = rest[:end]
	}
	p.at += len(rest)
	return strings.TrimSpace(rest)
}

func (p *selectorParser) wrong(expected string) error {
	if p.at == len(p.text) {
		return fmt.Errorf("expected %s at the end: %s", expected, selectorForms)
	}
	return fmt.Errorf("expected %s in column %d, before %s: %s", expected, p.at+1, quoted(p.text[p.at:]), selectorForms)
}
