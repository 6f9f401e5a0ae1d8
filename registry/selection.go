package registry

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// What a region tells others of itself, and what it takes from them, is selected: by
// namespace, by service, and by the labels of instances. The source has the first word
// and the receiver the last, and neither has to trust the other with his own.

// A Selected names services of a namespace, and of these the instances with some labels.
type Selected struct {
	Namespace string   // "*" = every one
	Services  []string // by their names, or by what these begin with and a "*"; none = all of them
	Labels    string   // a label selector; "" = whatever labels they have
}

// anyName stands for all namespaces, and at the end of a service's name for whatever follows.
const anyName = "*"

// selectionMax bounds the names of a selection, of services and of whole namespaces: each
// change is held against them.
const selectionMax = 1_024

// A Selection is which instances are told or taken; the zero value is all of them.
type Selection struct {
	namespaces []string        // whole ones, sorted
	services   []ServiceKey    // of other namespaces, sorted
	rules      []selectionRule // what cannot be looked up, sorted by its text
	nothing    bool            // not one
}

// A selectionRule is of services whose names begin alike, or of some instances only.
type selectionRule struct {
	namespace string // "*" = every one
	service   string // "" = all
	prefix    bool   // the service is what a name begins with
	labels    []requirement
	text      string // all of it, for digests
}

// Nothing is a selection without instances.
func Nothing() Selection { return Selection{nothing: true} }

// ParseSelected reads a selection in words: NAMESPACE/SERVICE, and a label selector after
// a space. Either name may be "*", and a service may end in one.
func ParseSelected(text string) (Selected, error) {
	names, labels, _ := strings.Cut(strings.TrimSpace(text), " ")
	namespace, service, ok := strings.Cut(names, "/")
	if !ok {
		return Selected{}, fmt.Errorf("%s is not NAMESPACE/SERVICE, such as \"prod/orders\", \"prod/*\" or \"prod/pay-* tier=gold\"", quoted(text))
	}
	out := Selected{Namespace: namespace, Labels: strings.TrimSpace(labels)}
	if service != anyName {
		out.Services = []string{service}
	}
	var alone Selection
	var bad problems
	alone.add(out, &bad)
	if err := bad.err(); err != nil {
		return Selected{}, fmt.Errorf("%s: %w", quoted(text), err)
	}
	return out, nil
}

// Select makes a selection of what is in one part of it or another; of everything if there are none.
func Select(asked []Selected) (Selection, error) {
	var bad problems
	names := 0
	for _, one := range asked {
		names += max(1, len(one.Services))
	}
	if names > selectionMax {
		bad.add("selections", fmt.Sprintf("have %d names, of at most %d: select whole namespaces", names, selectionMax))
		return Selection{}, bad.err()
	}
	var out Selection
	for n, one := range asked {
		var wrong problems
		out.add(one, &wrong)
		for _, p := range wrong {
			bad.add(fmt.Sprintf("selections[%d].%s", n, p.Field), p.Reason)
		}
	}
	return out.sorted(), bad.err()
}

// add takes a part in, in the form that costs a change least.
func (s *Selection) add(one Selected, bad *problems) {
	namespace := strings.TrimSpace(one.Namespace)
	if namespace != anyName {
		namespace = normalizeNamespace(namespace, bad)
	}
	labels := strings.TrimSpace(one.Labels)
	required := requirementsOf(labels, bad)
	rule := func(service string, prefix bool) {
		s.rules = append(s.rules, selectionRule{
			namespace: namespace, service: service, prefix: prefix, labels: required, text: fmt.Sprintf("%q", []any{namespace, service, prefix, labelsText(required)}),
		})
	}
	if len(one.Services) == 0 && (namespace == anyName || labels != "") {
		rule("", false)
	} else if len(one.Services) == 0 {
		s.namespaces = append(s.namespaces, namespace)
	}
	for _, name := range one.Services {
		start, prefix := strings.CutSuffix(strings.TrimSpace(name), anyName)
		if !prefix {
			start, _ = normalizeService(start, Levels{}, bad)
		} else if !isName(strings.TrimRight(start, ".-_"), ".-_") {
			bad.add("services", fmt.Sprintf("%s is no beginning of a name: %s; leave the services out for all of them", quoted(name), nameRule))
		}
		if prefix || namespace == anyName || labels != "" {
			rule(start, prefix)
		} else {
			s.services = append(s.services, ServiceKey{Namespace: namespace, Service: start})
		}
	}
}

func requirementsOf(labels string, bad *problems) []requirement {
	if labels == "" {
		return nil
	}
	if len(labels) > selectorBytesMax {
		bad.add("labels", fmt.Sprintf("have %d bytes, of at most %d", len(labels), selectorBytesMax))
		return nil
	}
	required, err := parseSelector(labels)
	if err != nil {
		bad.add("labels", err.Error())
	}
	return required
}

// labelsText is the same for the same requirements, however they were written.
func labelsText(required []requirement) string {
	texts := make([]string, len(required))
	for n, q := range required {
		values := slices.Compact(slices.Sorted(slices.Values(q.values)))
		texts[n] = fmt.Sprintf("%q %d %q", q.key, q.op, values)
	}
	slices.Sort(texts)
	return strings.Join(slices.Compact(texts), ",")
}

// selectorBytesMax bounds the labels of one part of a selection.
const selectorBytesMax = 1_024

func (s Selection) sorted() Selection {
	slices.Sort(s.namespaces)
	s.namespaces = slices.Compact(s.namespaces)
	s.services = slices.DeleteFunc(s.services, func(k ServiceKey) bool { return s.whole(k.Namespace) })
	slices.SortFunc(s.services, ServiceKey.Compare)
	s.services = slices.Compact(s.services)
	slices.SortFunc(s.rules, func(a, b selectionRule) int { return cmp.Compare(a.text, b.text) })
	s.rules = slices.CompactFunc(s.rules, func(a, b selectionRule) bool { return a.text == b.text })
	return s
}

func (s *Selection) whole(namespace string) bool {
	_, ok := slices.BinarySearch(s.namespaces, namespace)
	return ok
}

func (s *Selection) all() bool {
	return !s.nothing && len(s.namespaces) == 0 && len(s.services) == 0 && len(s.rules) == 0
}

// has says that all instances of a service are in it, whatever their labels.
func (s *Selection) has(k ServiceKey) bool {
	if s.all() || s.whole(k.Namespace) {
		return true
	}
	_, ok := slices.BinarySearchFunc(s.services, k, ServiceKey.Compare)
	return ok
}

// mayHave says that some instance of a service may be in it.
func (s *Selection) mayHave(k ServiceKey) bool {
	return s.has(k) || slices.ContainsFunc(s.rules, func(r selectionRule) bool { return r.names(k) })
}

// covers says whether an instance is in it.
func (s *Selection) covers(i *Instance) bool {
	k := i.ServiceKey()
	return s.has(k) || slices.ContainsFunc(s.rules, func(r selectionRule) bool {
		return r.names(k) && !slices.ContainsFunc(r.labels, func(q requirement) bool { return !q.matches(i.Labels) })
	})
}

// HowMuch says how much of a service is in it: all of its instances, none, or some, by
// their labels.
func (s *Selection) HowMuch(k ServiceKey) string {
	switch {
	case s.has(k), slices.ContainsFunc(s.rules, func(r selectionRule) bool { return r.names(k) && len(r.labels) == 0 }):
		return "all"
	case s.mayHave(k):
		return "some"
	}
	return "none"
}

func (r *selectionRule) names(k ServiceKey) bool {
	switch {
	case r.namespace != anyName && r.namespace != k.Namespace:
		return false
	case r.prefix:
		return strings.HasPrefix(k.Service, r.service)
	}
	return r.service == "" || r.service == k.Service
}

// digest is the same for selections of the same services, and for no others.
func (s *Selection) digest() string {
	switch {
	case s.all():
		return "all"
	case s.nothing:
		return "nothing"
	case len(s.rules) == 0: // as before there were rules, so that cursors of then are good
		return digestOf([]any{s.namespaces, s.services})
	}
	texts := make([]string, len(s.rules))
	for n, r := range s.rules {
		texts[n] = r.text
	}
	return digestOf([]any{s.namespaces, s.services, texts})
}

func digestOf(parts []any) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	return hex.EncodeToString(sum[:16])
}
