package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/spf13/pflag"

	"github.com/stellmap/stellmap/registry"
)

// TestConfig tells what a configuration becomes, and how it is refused: the
// file is the input, env= and flags= are laid over it.
func TestConfig(t *testing.T) {
	datadriven.RunTest(t, "testdata/config", func(t *testing.T, d *datadriven.TestData) string {
		dir := t.TempDir()
		path := ""
		if d.Input != "" {
			path = filepath.Join(dir, "stellmapd.toml")
			if err := os.WriteFile(path, []byte(d.Input), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		env := make(map[string]string)
		flags := pflag.NewFlagSet("stellmapd", pflag.ContinueOnError)
		addFlags(flags)
		for _, arg := range d.CmdArgs {
			for _, v := range arg.Vals {
				name, value, _ := strings.Cut(v, ":")
				if arg.Key == "env" {
					env[name] = value
				} else if err := flags.Set(name, value); err != nil {
					t.Fatal(err)
				}
			}
		}
		c, err := loadConfig(path, flags, func(k string) (string, bool) { v, ok := env[k]; return v, ok })
		if err != nil {
			return strings.ReplaceAll(err.Error(), dir+"/", "") + "\n"
		}
		var b strings.Builder
		fmt.Fprintf(&b, "node %d of %d, region %q, zone %q, data %s\n", c.Node.ID, c.Node.ClusterID, c.Node.Region, c.Node.Zone, c.Node.DataDir)
		fmt.Fprintf(&b, "listen %s %s %s %s\n", c.Server.HTTPAddr, c.Server.XDSAddr, c.Server.GRPCAddr, c.Server.AdminAddr)
		for _, m := range c.Cluster.Members {
			fmt.Fprintf(&b, "member %d: %s %s %s %s\n", m.ID, m.HTTP, m.XDS, m.GRPC, m.Admin)
		}
		if len(c.Cluster.Join) > 0 {
			fmt.Fprintf(&b, "joins %q\n", c.Cluster.Join)
		}
		if c.Server.WatchesPerAddress != auto {
			fmt.Fprintf(&b, "watches of an address: %d\n", c.watchesPerAddress())
		}
		if l := c.Limits; strings.Contains(d.Input, "[limits]") {
			fmt.Fprintf(&b, "limits %+v; requests of a stream: %d\n", l, c.limit(l.StreamRequests, streamRequestsDefault))
		}
		fmt.Fprintf(&b, "xds.stale_start_after %v, log %s %s, snapshot after %d or %d bytes, keep %d, tail %d\n",
			c.XDS.StaleStartAfter, c.Log.Level, c.Log.Format, c.Snapshot.Entries, c.Snapshot.Bytes, c.Snapshot.Keep, c.Snapshot.Tail)
		if x := c.XDS; x.StreamAge != 30*time.Minute || x.FirstResponses != 2000 {
			fmt.Fprintf(&b, "streams: %v, %d a second\n", x.StreamAge, x.FirstResponses)
		}
		for _, r := range c.Federation.Regions {
			fmt.Fprintf(&b, "follows region %q, cluster %d at %v, token: %v\n", r.Region, r.ClusterID, r.GRPC, r.Token != "")
			if r.Import != nil {
				fmt.Fprintf(&b, "... and takes %+v of it\n", selected(r.Import))
			}
		}
		if c.Federation.Export != nil {
			fmt.Fprintf(&b, "tells others of %+v\n", selected(c.Federation.Export))
		}
		if every := c.XDS.LoadEvery; every != 10*time.Second {
			fmt.Fprintf(&b, "load is reported every %v\n", every)
		}
		if c.Storage.Reserve != "256MiB" || c.Storage.Ballast != auto {
			fmt.Fprintf(&b, "storage reserve %d, ballast %s\n", bytesOf(c.Storage.Reserve), c.Storage.Ballast)
		}
		if c.TLS.CertFile != "" || !c.atHome() {
			fmt.Fprintf(&b, "TLS %+v, %s; at home %v\n", c.TLS, c.scheme(), c.atHome())
		}
		if c.authenticates() {
			b.WriteString("authentication is on\n")
		}
		if a := c.Auth; a.JWTIssuer != "" {
			fmt.Fprintf(&b, "JWTs of %s for %s by the keys in %s name their %s\n", a.JWTIssuer, a.JWTAudience, a.JWTKeysFile, a.JWTSubjectClaim)
		}
		if h := c.Health; len(h.Allow)+len(h.Deny) > 0 || h.InFlight != 512 || h.FlapHalfLife != time.Minute || h.CAFile != "" {
			rules := c.probeRules()
			fmt.Fprintf(&b, "checks reach %v, not %v, at home %v; trust %q; %d in flight, half-life %v\n", rules.Allow, rules.Deny, rules.Home, h.CAFile, h.InFlight, h.FlapHalfLife)
		}
		if p := c.preservation(); p != (registry.Preservation{Least: 5, Percent: 15, Limit: 10 * time.Minute}) {
			fmt.Fprintf(&b, "protection %+v\n", p)
		}
		if c.Trace.url != "" {
			fmt.Fprintf(&b, "spans of %v of the changes go to %s\n", c.Trace.SampleRatio, c.Trace.url)
		}
		return b.String()
	})
}
