package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"

	recordv1 "github.com/stellmap/stellmap/api/proto/stellmap/record/v1"
)

// Upstreams is what a service calls. Its proxies say so themselves, each as it was
// started; the document of the service takes the place of that while they run.
type Upstreams struct {
	// Wants is what the service's proxies are told of when they ask for all, in place
	// of what they declare. Nil = what they declare.
	Wants []string `json:"wants,omitzero"`
	// May is what they are told of at all, however they ask. Nil = anything.
	May []string `json:"may,omitzero"`
}

// The bounds of what a service calls.
const (
	upstreamPatternsMax = 1_000 // in each of the two lists
	upstreamRule        = "{service}.{namespace}, or *.{namespace} for all of a namespace"
)

// allOf heads a pattern for all services of a namespace.
const allOf = "*."

// UpstreamPattern is a pattern for services to be called, in the form in which
// patterns are compared; false when it is none.
func UpstreamPattern(text string) (string, bool) {
	p := strings.ToLower(strings.TrimSpace(text))
	dot := strings.LastIndexByte(p, '.')
	if dot <= 0 {
		return p, false
	}
	service, namespace := p[:dot], p[dot+1:]
	return p, (service == "*" || isName(service, "._-")) && isName(namespace, "_-")
}

// NotUpstream says what is wrong with a text that is no pattern.
func NotUpstream(text string) string {
	return fmt.Sprintf("%s is not an upstream: %s", quoted(text), upstreamRule)
}

// Allows says whether a service, by the name of its cluster, or all that a pattern is for, may be called.
// It is cheap: it is asked of every name of a proxy.
func (u *Upstreams) Allows(name string) bool {
	if u == nil || u.May == nil {
		return true
	}
	_, itself := slices.BinarySearch(u.May, name)
	_, all := slices.BinarySearch(u.May, allOf+name[strings.LastIndexByte(name, '.')+1:])
	return itself || all
}

// Of is what a proxy that declares some patterns is told of when it asks for all:
// what is wanted, as far as it is allowed. It is sorted, as what it is given.
func (u *Upstreams) Of(declared []string) []string {
	if u == nil {
		return declared
	}
	wanted := declared
	if u.Wants != nil {
		wanted = u.Wants
	}
	if u.May == nil {
		return wanted
	}
	// Each list can be long, and a stream waits for this: they are not held each against each.
	both, within := []string{}, byNamespace(u.May)
	for _, w := range wanted {
		if u.Allows(w) {
			both = append(both, w)
		}
		if namespace, all := strings.CutPrefix(w, allOf); all {
			both = append(both, within[namespace]...)
		}
	}
	return sorted(both)
}

// byNamespace are patterns by the namespace that they are of.
func byNamespace(patterns []string) map[string][]string {
	out := make(map[string][]string)
	for _, p := range patterns {
		namespace := p[strings.LastIndexByte(p, '.')+1:]
		out[namespace] = append(out[namespace], p)
	}
	return out
}

func (u Upstreams) normalize(bad *problems) Upstreams {
	out := Upstreams{Wants: normalizePatterns("wants", u.Wants, bad), May: normalizePatterns("may", u.May, bad)}
	for _, w := range out.Wants {
		if !out.Allows(w) {
			bad.add("wants", fmt.Sprintf("has %s, which may does not allow: add it there, or leave it out here", quoted(w)))
		}
	}
	return out
}

// normalizePatterns keeps nil, which says nothing, apart from an empty list.
func normalizePatterns(field string, given []string, bad *problems) []string {
	if given == nil {
		return nil
	}
	if len(given) > upstreamPatternsMax {
		bad.add(field, fmt.Sprintf("has %d patterns: at most %d, and *.{namespace} stands for all of a namespace", len(given), upstreamPatternsMax))
		return nil
	}
	out := []string{}
	for i, text := range given {
		p, ok := UpstreamPattern(text)
		if !ok {
			bad.add(fmt.Sprintf("%s[%d]", field, i), NotUpstream(text))
			continue
		}
		out = append(out, p)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (u *Upstreams) record() *recordv1.Upstreams {
	if u == nil {
		return nil
	}
	return &recordv1.Upstreams{Wants: patternsToRecord(u.Wants), May: patternsToRecord(u.May)}
}

func patternsToRecord(patterns []string) *recordv1.UpstreamPatterns {
	if patterns == nil {
		return nil
	}
	return &recordv1.UpstreamPatterns{Patterns: patterns}
}

func upstreamsOfRecord(record *recordv1.Upstreams) *Upstreams {
	if record == nil {
		return nil
	}
	return &Upstreams{Wants: patternsOfRecord(record.GetWants()), May: patternsOfRecord(record.GetMay())}
}

func patternsOfRecord(record *recordv1.UpstreamPatterns) []string {
	if record == nil {
		return nil
	}
	return append([]string{}, record.GetPatterns()...)
}

func encodedUpstreams(u *Upstreams) []byte { return encode(u.record()) }

func encodeUpstreams(d *Document[Upstreams]) []byte {
	return encodeDocument(d, func(e *recordv1.Edit, u *Upstreams) { e.Upstreams = u.record() })
}

func decodeUpstreams(k ServiceKey, value []byte) (*Document[Upstreams], error) {
	about := fmt.Sprintf("what service %q in namespace %q calls", k.Service, k.Namespace)
	return decodeDocument(about, value, func(e *recordv1.Edit) *Upstreams { return upstreamsOfRecord(e.GetUpstreams()) })
}

func upstreamsShelf(k ServiceKey) shelf[Upstreams] {
	return shelf[Upstreams]{
		what:     fmt.Sprintf("the document of what service %s in namespace %s calls", quoted(k.Service), quoted(k.Namespace)),
		of:       Ask{Resource: ResourceUpstreams, Namespace: k.Namespace, Service: k.Service},
		document: func(s *state) *Document[Upstreams] { return s.upstreams[k] },
		command: func(next *Upstreams, w Writing) []byte {
			edit := &recordv1.EditUpstreams{Key: &recordv1.ServiceKey{Namespace: k.Namespace, Service: k.Service}, Upstreams: next.record(), Precondition: w.If.record(), By: w.By}
			return encode(&recordv1.Command{Format: formatMax, Kind: &recordv1.Command_EditUpstreams{EditUpstreams: edit}})
		},
	}
}

// PutUpstreams writes down what a service calls, whether that service is there or not.
func (r *Registry) PutUpstreams(ctx context.Context, requestID string, k ServiceKey, u Upstreams, w Writing) (Edited, error) {
	var bad problems
	k, u = k.normalize(&bad), u.normalize(&bad)
	w.By = saidText(w.By, "by", byBytesMax, &bad)
	if err := bad.err(); err != nil {
		return Edited{}, err
	}
	return edit(ctx, r, requestID, upstreamsShelf(k), &u, w)
}

// DeleteUpstreams takes it back: its proxies are told of what they declare. It is
// no error that there is nothing to take back.
func (r *Registry) DeleteUpstreams(ctx context.Context, requestID string, k ServiceKey, w Writing) (Edited, error) {
	var bad problems
	k = k.normalize(&bad)
	w.By = saidText(w.By, "by", byBytesMax, &bad)
	if err := bad.err(); err != nil {
		return Edited{}, err
	}
	return edit(ctx, r, requestID, upstreamsShelf(k), nil, w)
}

// Upstreams reads what a service calls, with its last edits. The error is
// ErrNoDocument when nobody has ever written it down; it may have been taken back.
func (r *Registry) Upstreams(ctx context.Context, k ServiceKey, c Consistency) (*Document[Upstreams], Revision, error) {
	var bad problems
	k = k.normalize(&bad)
	if err := bad.err(); err != nil {
		return nil, 0, err
	}
	return read(ctx, r, upstreamsShelf(k), c)
}
