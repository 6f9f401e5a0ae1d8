package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// A selection is what the flags of get say about which services or instances
// are listed.
type selection struct {
	namespace string
	all       bool // of all namespaces
	services  []string

	filters []filter
	limit   uint
	count   bool

	stale        bool
	maxStaleness time.Duration
}

// A filter is a flag that the server knows as a parameter. What its values may
// be is for the server to say.
type filter struct {
	flag, parameter string
	values          *[]string // nil for the ones that have one value
	value           *string
}

// pageItems is how many items are asked for at once.
const pageItems = 1000

func (s *selection) flags(flags *pflag.FlagSet) {
	s.filterFlags(flags)
	flags.UintVar(&s.limit, "limit", 0, "show no more than so many; 0 shows all")
	flags.BoolVar(&s.count, "count", false, "show the number of them only")
}

// filterFlags are those that say what is shown.
func (s *selection) filterFlags(flags *pflag.FlagSet) {
	namespaceFlag(flags, &s.namespace)
	flags.BoolVarP(&s.all, "all-namespaces", "A", false, "of all namespaces")
	s.list(flags, "selector", "l", "selector", "labels: k, !k, k=v, k!=v, 'k in (a,b)', 'k notin (a,b)', with commas for \"and\"; repeatable, all must match")
	s.list(flags, "prefix", "", "servicePrefix", "services whose names begin so; repeatable, like the next ones: any of them")
	s.list(flags, "group", "", "group", "instances of a group")
	s.list(flags, "zone", "", "zone", "instances in a zone")
	s.list(flags, "region", "", "region", "instances in a region")
	s.list(flags, "version", "", "version", "instances that run a version")
	s.list(flags, "endpoint", "", "endpoint", "instances with an endpoint of that name or protocol; others are not shown")
	s.list(flags, "status", "", "status", "instances in a state: passing, warning, suspect, critical, draining, expired, disabled, routable, any (default any)")
	s.one(flags, "organization", "organization", "services of five levels: the first one; whole, acme is not acme2")
	s.one(flags, "business-domain", "businessDomain", "the second level")
	s.one(flags, "capability-domain", "capabilityDomain", "the third level")
	s.one(flags, "application", "application", "the fourth level")
	s.one(flags, "role", "role", "the last level")
	flags.BoolVar(&s.stale, "stale", false, "whatever the member knows, without asking the leader")
	flags.DurationVar(&s.maxStaleness, "max-staleness", 0, "with --stale: confirmed by the leader, or refused, when it is older")
}

func (s *selection) list(flags *pflag.FlagSet, flag, short, parameter, help string) {
	f := filter{flag: flag, parameter: parameter, values: new([]string)}
	flags.StringArrayVarP(f.values, flag, short, nil, help)
	s.filters = append(s.filters, f)
}

func (s *selection) one(flags *pflag.FlagSet, flag, parameter, help string) {
	f := filter{flag: flag, parameter: parameter, value: new(string)}
	flags.StringVar(f.value, flag, "", help)
	s.filters = append(s.filters, f)
}

// check finds what is wrong with the flags before anybody is asked. An empty
// filter would show everything to somebody who wanted something.
func (s *selection) check(flags *pflag.FlagSet) error {
	for _, f := range s.filters {
		if flags.Changed(f.flag) && slices.ContainsFunc(f.all(), isBlank) {
			return usagef("--%s: is empty", f.flag)
		}
	}
	switch {
	case s.all && flags.Changed("namespace"):
		return usagef("-A and -n: give one of them")
	case s.count && s.limit > 0:
		return usagef("--count and --limit: give one of them")
	case s.maxStaleness != 0 && !s.stale:
		return usagef("--max-staleness: is for --stale")
	case s.maxStaleness < 0:
		return usagef("--max-staleness: %v is negative", s.maxStaleness)
	}
	for _, service := range s.services {
		if err := checkSegment("SERVICE", service); err != nil {
			return err
		}
	}
	if s.all {
		return nil
	}
	return checkSegment("--namespace", s.namespace)
}

func (f filter) all() []string {
	if f.values != nil {
		return *f.values
	}
	return []string{*f.value}
}

func isBlank(s string) bool { return strings.TrimSpace(s) == "" }

// given are the values that were.
func (f filter) given() []string { return slices.DeleteFunc(slices.Clone(f.all()), isBlank) }

// filtered says whether more is asked for than a namespace and services.
func (s *selection) filtered() bool {
	for _, f := range s.filters {
		if len(f.given()) > 0 {
			return true
		}
	}
	return false
}

// where is the selection in few words, for errors.
func (s *selection) where() string {
	where := s.namespace
	if s.all {
		where = "all namespaces"
	}
	if len(s.services) > 0 {
		where += "/" + strings.Join(s.services, ",")
	}
	return where
}

// path is where the API lists things of the kind; a single service has a place of its own.
func (s *selection) path(kind string) string {
	if s.all {
		return "/api/v2/" + kind
	}
	if kind == "instances" && len(s.services) == 1 {
		return instanceRef{namespace: s.namespace, service: s.services[0]}.path()
	}
	return namespacePath(s.namespace) + "/" + kind
}

func (s *selection) parameters(kind string) url.Values {
	out := make(url.Values)
	if len(s.services) > 0 && (s.all || kind != "instances" || len(s.services) > 1) {
		out["service"] = s.services
	}
	for _, f := range s.filters {
		if given := f.given(); len(given) > 0 {
			out[f.parameter] = given
		}
	}
	if s.stale {
		out.Set("consistency", "stale")
	}
	if s.maxStaleness > 0 {
		out.Set("max_staleness", s.maxStaleness.String())
	}
	return out
}

// A page is a part of a list, or the whole.
type page struct {
	Revision   uint64     `json:"revision"`
	Services   []service  `json:"services"`
	Instances  []instance `json:"instances"`
	NextCursor string     `json:"nextCursor"`
	Count      uint64     `json:"count"`
}

func (p *page) items() uint { return uint(len(p.Services) + len(p.Instances)) }

// list reads all that is selected, page by page, as of one revision. When the
// member no longer keeps the list it begins anew, once: nothing has been shown yet.
func (c *ctl) list(ctx context.Context, kind string, s *selection) (page, error) {
	out, err := c.listOnce(ctx, kind, s)
	if f := (*failure)(nil); errors.As(err, &f) && f.code == "cursor_expired" {
		out, err = c.listOnce(ctx, kind, s)
	}
	return out, err
}

func (c *ctl) listOnce(ctx context.Context, kind string, s *selection) (page, error) {
	out := page{Services: []service{}, Instances: []instance{}}
	for {
		part, err := c.page(ctx, kind, s, &out)
		if err != nil {
			return out, err
		}
		out.Revision, out.Count, out.NextCursor = part.Revision, part.Count, part.NextCursor
		out.Services, out.Instances = append(out.Services, part.Services...), append(out.Instances, part.Instances...)
		if out.NextCursor == "" || s.limit > 0 && out.items() >= s.limit {
			return out, nil
		}
	}
}

// page reads what comes after what is there.
func (c *ctl) page(ctx context.Context, kind string, s *selection, after *page) (page, error) {
	parameters := s.parameters(kind)
	size := uint(pageItems)
	if s.limit > 0 {
		size = min(size, s.limit-after.items())
	}
	if s.count {
		parameters.Set("count", "only")
	} else {
		parameters.Set("limit", strconv.FormatUint(uint64(size), 10))
	}
	if after.NextCursor != "" {
		parameters.Set("cursor", after.NextCursor)
	}
	r := request{doing: fmt.Sprintf("get %s of %s", kind, s.where()), method: http.MethodGet, path: s.path(kind) + "?" + parameters.Encode()}
	var part page
	err := c.call(ctx, r, &part)
	return part, err
}

// foot is the line below a list.
func (p *page) foot() string {
	if p.NextCursor != "" {
		return revisionLine(p.Revision) + "; there are more, which a higher --limit shows"
	}
	return revisionLine(p.Revision)
}

// counted is the answer to --count.
type counted struct {
	Revision uint64 `json:"revision"`
	Count    uint64 `json:"count"`
}

func (c *ctl) showCount(p page) error {
	number := strconv.FormatUint(p.Count, 10)
	return c.show(view{
		whole: counted{p.Revision, p.Count}, names: []string{number},
		columns: []column{{"COUNT", false}}, rows: [][]string{{number}}, foot: revisionLine(p.Revision),
	})
}
