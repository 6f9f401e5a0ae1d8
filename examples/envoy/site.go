package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/stellmap/stellmap/internal/envoyadmin"
	"github.com/stellmap/stellmap/internal/process"
)

// A site is a region: a stellmapd, an Envoy, and the upstreams that run there.
type site struct {
	region    string
	clusterID int
	suffix    string // of what belongs to it, processes and ports
	upstreams []string
}

// The regions. The story begins in the first; each follows the other.
var (
	home = site{region: "a", clusterID: 100, upstreams: []string{"orders-1", "orders-2", "orders-3"}}
	away = site{region: "b", clusterID: 200, suffix: "-b", upstreams: []string{"orders-b1", "orders-b2"}}

	sites = []site{home, away}
)

func (at site) daemon() string { return "stellmapd" + at.suffix }
func (at site) envoy() string  { return "envoy" + at.suffix }

// other is the region that is not this one.
func (at site) other() site {
	if at.region == home.region {
		return away
	}
	return home
}

// siteOf is where an upstream runs.
func siteOf(upstream string) site {
	if slices.Contains(away.upstreams, upstream) {
		return away
	}
	return home
}

// portNames are the free ports that a scene needs.
func portNames() (names []string) {
	for _, at := range sites {
		for _, name := range []string{"http", "xds", "grpc", "admin", "egress", "envoy_admin"} {
			names = append(names, name+at.suffix)
		}
		names = append(names, at.upstreams...)
	}
	return names
}

// port is one of a region's.
func (s *scene) port(at site, name string) int { return s.ports[name+at.suffix] }

// writeConfig writes the file of a region's member: a cluster of one, synced like any
// other, which keeps a copy of the other region.
func (s *scene) writeConfig(at site) error {
	config := fmt.Sprintf(`[node]
id = 1
cluster_id = %d
region = %q
data_dir = %q

[server]
http_addr  = "127.0.0.1:%d"
xds_addr   = "127.0.0.1:%d"
grpc_addr  = "127.0.0.1:%d"
admin_addr = "127.0.0.1:%d"

[[federation.regions]]
region = %q
cluster_id = %d
grpc = [%q] # a way to the other's peers that the demo can cut
`, at.clusterID, at.region, filepath.Join(s.work, "data"+at.suffix),
		s.port(at, "http"), s.port(at, "xds"), s.port(at, "grpc"), s.port(at, "admin"),
		at.other().region, at.other().clusterID, s.links[at.region].Address())
	if err := os.WriteFile(s.configPath(at), []byte(config), 0o644); err != nil {
		return fmt.Errorf("write %s.toml: %w", at.daemon(), err)
	}
	return nil
}

func (s *scene) configPath(at site) string { return filepath.Join(s.work, at.daemon()+".toml") }

// server is a region's registry.
func (s *scene) server(at site) string { return fmt.Sprintf("http://127.0.0.1:%d", s.port(at, "http")) }

// egress is where a region's Envoy takes requests.
func (s *scene) egress(at site) string {
	return fmt.Sprintf("http://127.0.0.1:%d", s.port(at, "egress"))
}

// admin is the admin port of a region's Envoy.
func (s *scene) admin(at site) envoyadmin.Admin {
	return envoyadmin.Admin{URL: fmt.Sprintf("http://127.0.0.1:%d", s.port(at, "envoy_admin")), Client: s.client}
}

// openLinks opens the ways on which the regions follow each other.
func (s *scene) openLinks() (err error) {
	s.links = make(map[string]*process.Link)
	for _, at := range sites {
		to := fmt.Sprintf("127.0.0.1:%d", s.port(at.other(), "grpc"))
		if s.links[at.region], err = process.NewLink(to); err != nil {
			return err
		}
	}
	return nil
}

// cut cuts the regions off from each other, or ends that.
func (s *scene) cut(yes bool) {
	for _, l := range s.links {
		l.Set(yes)
	}
}
