package main

import (
	"fmt"
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// regionsKey is another such list: the regions that this one keeps copies of.
const regionsKey = "federation.regions"

// exportKey is what other regions are told of this one, which only a file can say, too.
const exportKey = "federation.export"

// regionKeys are the keys of one [[federation.regions]] table; all but the token and what
// is imported must be there.
var regionKeys = [...]setting{
	{"region", kindName, "", ""},
	{"cluster_id", kindID, "", ""},
	{"grpc", kindJoin, "", ""},
	{"token", kindSecret, "", ""},
	{"import", kindSelections, "", ""},
}

// RegionConfig is one [[federation.regions]] table: another region's cluster, of which
// this one keeps a copy.
type RegionConfig struct {
	Region    string   `mapstructure:"region"`
	ClusterID uint64   `mapstructure:"cluster_id"`
	GRPC      []string `mapstructure:"grpc"`
	Token     string   `mapstructure:"token"`
	Import    []string `mapstructure:"import"` // nil = everything that it tells
}

// checkRegions looks at each [[federation.regions]] table of the file.
func (l *loader) checkRegions() {
	for i, table := range l.file.regions {
		for _, s := range regionKeys {
			key := fmt.Sprintf("%s[%d].%s", regionsKey, i, s.key)
			at, ok := l.file.values[key]
			switch {
			case !ok && s.kind != kindSecret && s.kind != kindSelections:
				l.addAt(table, "%s: missing, every region needs region, cluster_id and grpc", key)
			case !ok:
			case at.wrong(s.kind):
				l.addAt(at.pos, "%s: want %s, got %s", key, s.kind.wants(), s.shown(at.what))
			case s.kind == kindJoin || s.kind == kindSelections: // what the list holds is looked at when it is read
			default:
				if reason := s.kind.check(at.text); reason != "" {
					l.addAt(at.pos, "%s: %s", key, reason)
				} else if at.text == "" && s.kind == kindName {
					l.addAt(at.pos, "%s: is empty", key)
				}
			}
		}
	}
}

// checkSources looks at what only the regions together, and beside this one, can get wrong.
func (l *loader) checkSources(c Config) {
	if len(c.Federation.Regions) > 0 && c.Node.Region == "" {
		l.addAt(l.file.regions[0], "%s: needs node.region, which says whose copies these are", regionsKey)
	}
	seen := make(map[string]int)
	for i, r := range c.Federation.Regions {
		at := func(key string) (position, string) {
			name := fmt.Sprintf("%s[%d].%s", regionsKey, i, key)
			return l.file.values[name].pos, name
		}
		pos, name := at("region")
		if r.Region == c.Node.Region {
			l.addAt(pos, "%s: %q is node.region, this region itself; a region keeps no copy of its own", name, r.Region)
		}
		if first, twice := seen[r.Region]; twice {
			l.addAt(pos, "%s: %q is also region %d; one cluster a region", name, r.Region, first)
		}
		seen[r.Region] = i
		pos, name = at("grpc")
		if reason := checkJoinList(strings.Join(r.GRPC, ",")); reason != "" {
			l.addAt(pos, "%s: %s", name, reason)
		} else if len(r.GRPC) == 0 {
			l.addAt(pos, "%s: is empty, want the grpc addresses of the region's members", name)
		} else if reason := c.inTheClear(r.GRPC); reason != "" {
			l.addAt(pos, "%s: %s", name, reason)
		}
		pos, name = at("import")
		if r.Import != nil && len(r.Import) == 0 {
			l.addAt(pos, "%s: is empty: leave the region out to take nothing of it, or the list to take all", name)
		}
		l.checkSelections(pos, name, r.Import)
	}
}

// checkExport looks at what other regions are told of this one.
func (l *loader) checkExport(c Config) {
	l.checkSelections(l.file.values[exportKey].pos, exportKey, c.Federation.Export)
}

func (l *loader) checkSelections(pos position, name string, texts []string) {
	var all []registry.Selected
	for n, text := range texts {
		one, err := registry.ParseSelected(text)
		if err != nil {
			l.addAt(pos, "%s[%d]: %v", name, n, err)
			return
		}
		all = append(all, one)
	}
	if _, err := registry.Select(all); err != nil { // there are too many
		l.addAt(pos, "%s: %v", name, err)
	}
}

// selected are selections that were checked.
func selected(texts []string) []registry.Selected {
	var all []registry.Selected
	for _, text := range texts {
		one, err := registry.ParseSelected(text)
		if err != nil {
			panic(fmt.Sprintf("stellmapd: %q was checked: %v", text, err))
		}
		all = append(all, one)
	}
	return all
}

// wanted is what is taken of a region.
func (r *RegionConfig) wanted() registry.Selection {
	out, err := registry.Select(selected(r.Import))
	if err != nil {
		panic(fmt.Sprintf("stellmapd: import of region %q was checked: %v", r.Region, err))
	}
	return out
}

// exports is what other regions are told of this one: everything where the settings do not
// say, and nothing where they say that it is none.
func (c *Config) exports() registry.Selection {
	if c.Federation.Export != nil && len(c.Federation.Export) == 0 {
		return registry.Nothing()
	}
	out, err := registry.Select(selected(c.Federation.Export))
	if err != nil {
		panic(fmt.Sprintf("stellmapd: %s was checked: %v", exportKey, err))
	}
	return out
}
