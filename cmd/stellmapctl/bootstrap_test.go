package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// oddNodes hold what YAML could take for something else.
var oddNodes = []envoyNode{
	{proxyNode: proxyNode{ID: "web-1", Service: "web", Namespace: "default"}},
	{proxyNode: proxyNode{ID: `q"uote\'s`, Service: "no", Namespace: "null", Region: "yes", Zone: "0x10"}},
	{proxyNode: proxyNode{ID: "a: b # c", Service: "{x}", Namespace: "1e3", Region: "&a", Zone: "*b"}},
	{proxyNode: proxyNode{ID: "<&>", Service: "- -", Namespace: "d", Region: "%TAG", Zone: "@`|>"}},
	{proxyNode: proxyNode{ID: "節點 é \U0001F600", Service: "{{.ID}}", Namespace: "d", Region: " ", Zone: "~"}, Upstreams: []string{"*.d", "no.1e3"}},
}

// The xDS servers of the odd nodes: a STATIC cluster, IPv6, and names.
var oddServers = [][]xdsAddress{
	{{"127.0.0.1", 18000}},
	{{"127.0.0.1", 18000}, {"::1", 18001}},
	{{"localhost", 18000}, {"10.0.0.1", 1}},
}

func odd(visit func(n envoyNode)) {
	for _, n := range oddNodes {
		for _, servers := range oddServers {
			n.EgressPort, n.AdminPort, n.XDS = 15001, 15000, servers
			visit(n)
		}
	}
}

// Whatever a node's names hold, a YAML reader gets them as they were.
func TestNamesSurviveYAML(t *testing.T) {
	odd(func(n envoyNode) {
		text, err := n.render()
		if err != nil {
			t.Fatal(err)
		}
		var read struct {
			Node struct {
				ID       string
				Cluster  string
				Locality struct{ Region, Zone string }
				Metadata map[string]any
			}
		}
		if err := yaml.Unmarshal(text, &read); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		got := read.Node
		if got.ID != n.ID || got.Cluster != n.Service || got.Locality.Region != n.Region || got.Locality.Zone != n.Zone ||
			got.Metadata["stellmap.service"] != n.Service || got.Metadata["stellmap.namespace"] != n.Namespace {
			t.Errorf("%+v is read as %+v", n, got)
		}
		upstreams, _ := got.Metadata["stellmap.upstreams"].([]any)
		if len(upstreams) != len(n.Upstreams) {
			t.Errorf("upstreams %q are read as %q", n.Upstreams, upstreams)
		}
	})
}

// A real Envoy takes every bootstrap.
func TestEnvoyTakesTheBootstrap(t *testing.T) {
	path := os.Getenv("ENVOY_BIN")
	if path == "" {
		t.Skip("not tested, ENVOY_BIN names no Envoy (scripts/envoy prints one; internal/e2e has one validate, too)")
	}
	odd(func(n envoyNode) {
		text, err := n.render()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "envoy.yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(path, "--mode", "validate", "--log-level", "warning", "-c", file).CombinedOutput()
		if err != nil || strings.Contains(string(out), "deprecated") {
			t.Errorf("%v\n%s\n%s", err, out, text)
		}
	})
}
