package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// parameters reads a query string and notes what is wrong with it.
type parameters struct {
	values url.Values
	bad    []registry.Problem
}

func parametersOf(q *http.Request) *parameters {
	values, err := url.ParseQuery(q.URL.RawQuery)
	p := &parameters{values: values}
	if err != nil {
		p.add("query", "cannot be read: "+err.Error())
	}
	return p
}

func (p *parameters) add(name, reason string) {
	p.bad = append(p.bad, registry.Problem{Field: name, Reason: reason})
}

func (p *parameters) err() error {
	if len(p.bad) == 0 {
		return nil
	}
	return &registry.ValidationError{Problems: p.bad}
}

// all are the values of a parameter that may be repeated.
func (p *parameters) all(name string) []string { return p.values[name] }

// first is a parameter's value; "" when it is absent.
func (p *parameters) first(name string) string { return p.values.Get(name) }

// limit is a whole number from 0 on.
func (p *parameters) limit() int {
	text := strings.TrimSpace(p.first("limit"))
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		p.add("limit", fmt.Sprintf("%q is not a whole number: 0 (no limit) or more", clip(text)))
	}
	return n
}

func (p *parameters) levels() registry.Levels {
	return registry.Levels{
		Organization: p.first("organization"), BusinessDomain: p.first("businessDomain"),
		CapabilityDomain: p.first("capabilityDomain"), Application: p.first("application"), Role: p.first("role"),
	}
}

// only refuses all parameters but the given, and those of them that are given
// twice; a star marks one that may be. A misspelt filter that is ignored answers too much.
func (p *parameters) only(known ...string) {
	names := make([]string, 0, len(p.values))
	for name := range p.values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		switch {
		case slices.Contains(known, name+"*"):
		case !slices.Contains(known, name):
			p.add(clip(name), "is not known here: "+knownParameters(known))
		case len(p.values[name]) > 1:
			p.add(name, fmt.Sprintf("is given %d times: once", len(p.values[name])))
		}
	}
}

func knownParameters(known []string) string {
	if len(known) == 0 {
		return "this call takes no parameters"
	}
	return "the parameters are " + strings.ReplaceAll(strings.Join(known, ", "), "*", "")
}

// choice is one of a few words, the first of which is the default.
func (p *parameters) choice(name string, words ...string) string {
	text := p.first(name)
	if text == "" {
		return words[0]
	}
	if !slices.Contains(words, text) {
		p.add(name, fmt.Sprintf("%q is not known: %s", clip(text), strings.Join(words, " or ")))
	}
	return text
}

func (p *parameters) consistency() registry.Consistency {
	if p.choice("consistency", "linearizable", "stale") == "stale" {
		return registry.Stale
	}
	return registry.Linearizable
}
