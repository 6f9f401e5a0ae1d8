package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stellmap/stellmap/registry"
)

// parameters reads a query string and notes what is wrong with it.
type parameters struct {
	values url.Values
	bad    []registry.Problem
}

func parametersOf(q *http.Request) *parameters {
	if q.URL.RawQuery == "" {
		return &parameters{} // as most calls have it
	}
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

// join adds what the registry finds wrong, so that all is told at once.
func (p *parameters) join(err error) {
	var invalid *registry.ValidationError
	if errors.As(err, &invalid) {
		p.bad = append(p.bad, invalid.Problems...)
	}
}

// all are the values of a parameter that may be repeated.
func (p *parameters) all(name string) []string { return p.values[name] }

// first is a parameter's value; "" when it is absent.
func (p *parameters) first(name string) string { return p.values.Get(name) }

// one is the first value of a parameter that v1 has once, as a list.
func (p *parameters) one(name string) []string { return []string{p.first(name)} }

// words are the values of a parameter that may be repeated or have several with
// commas between them.
func (p *parameters) words(name string) []string {
	var out []string
	for _, text := range p.all(name) {
		for word := range strings.SplitSeq(text, ",") {
			if word = strings.TrimSpace(word); word != "" {
				out = append(out, word)
			}
		}
	}
	return out
}

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
// twice; a star marks one that may be. A misspelt filter that is ignored answers too
// much. A number or a choice that is empty is a variable of the caller's that was not set.
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
		case p.first(name) == "" && limited(name):
			p.add(name, "is empty: give it a value, or leave it out")
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

// The parameters of reads.
const (
	consistencyName = "consistency"
	stalenessName   = "max_staleness"
)

// freshness is what a read asks for, and what its answer says of itself.
type freshness struct {
	registry.Consistency
	age string // "" = it is not stale
}

// freshness reads how fresh an answer must be.
func (p *parameters) freshness(a *API) freshness {
	stale := p.choice(consistencyName, "linearizable", "stale") == "stale"
	text, limit := p.first(stalenessName), time.Duration(0)
	if text != "" {
		var err error
		limit, err = time.ParseDuration(text)
		switch {
		case err != nil || limit < registry.StalenessMin || limit > registry.StalenessMax:
			p.add(stalenessName, fmt.Sprintf("%q is not a time from %v to %v, such as 5s", clip(text), registry.StalenessMin, registry.StalenessMax))
		case !stale:
			p.add(stalenessName, "is for reads with consistency=stale")
		}
	}
	if !stale {
		return freshness{}
	}
	return freshness{Consistency: registry.Stale(limit), age: ageText(a.registry.StaleAge(limit))}
}

// ageText is an age in seconds.
func ageText(age time.Duration, known bool) string {
	if !known {
		return "unknown"
	}
	return strconv.FormatFloat(age.Seconds(), 'f', 3, 64)
}

const ageHeader = "X-StellMap-Age"

// tell puts the age of a stale answer into its header, in seconds.
func (f freshness) tell(w http.ResponseWriter) {
	if f.age != "" {
		w.Header().Set(ageHeader, f.age)
	}
}
