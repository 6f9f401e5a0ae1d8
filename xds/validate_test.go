package xds

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A config is what a real Envoy is asked its opinion of: the goldens of policies as
// one static configuration, in which their services have names of their own.
type config struct {
	t        *testing.T
	clusters []any
	hosts    []any
	locals   []any
}

// add takes the resources of a golden: clusters, each followed by its endpoints, and hosts.
func (c *config) add(path string) {
	c.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		c.t.Fatal(err)
	}
	own := strings.TrimSuffix(filepath.Base(path), ".txt")
	_, resources, _ := strings.Cut(string(text), "\n{\n") // behind the policy
	resources = strings.NewReplacer("orders.prod", "orders."+own, "shadow.prod", "orders."+own).Replace("{\n" + resources)
	for d := json.NewDecoder(strings.NewReader(resources)); ; {
		var one map[string]any
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			c.t.Fatalf("%s: %v", path, err)
		}
		c.take(one)
	}
}

func (c *config) take(one map[string]any) {
	switch {
	case one["domains"] != nil:
		c.hosts = append(c.hosts, one)
	case one["filter_chains"] != nil:
		c.locals = append(c.locals, one)
	case one["cluster_name"] != nil:
		c.clusters[len(c.clusters)-1].(map[string]any)["load_assignment"] = one
	default: // the endpoints that follow take the place of EDS, which cannot be asked for here
		delete(one, "eds_cluster_config")
		one["type"] = "STATIC"
		c.clusters = append(c.clusters, one)
	}
}

// accepted says whether Envoy takes the configuration, and what it says.
func (c *config) accepted() (bool, string) {
	c.t.Helper()
	golden, err := os.ReadFile("testdata/listener.json")
	if err != nil {
		c.t.Fatal(err)
	}
	var listener map[string]any
	if err := json.Unmarshal(golden, &listener); err != nil {
		c.t.Fatal(err)
	}
	chain := listener["filter_chains"].([]any)[0].(map[string]any)
	manager := chain["filters"].([]any)[0].(map[string]any)["typed_config"].(map[string]any)
	delete(manager, "rds")
	manager["route_config"] = map[string]any{"name": egressName, "virtual_hosts": c.hosts}
	text, err := json.Marshal(map[string]any{
		"node":             map[string]any{"id": "web-1", "cluster": "web"},
		"static_resources": map[string]any{"clusters": c.clusters, "listeners": append([]any{listener}, c.locals...)},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	path := filepath.Join(c.t.TempDir(), "envoy.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		c.t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(*envoyBinary, "--mode", "validate", "--log-level", "warning", "-c", path)
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return err == nil, out.String()
}

// What every golden of a policy shows a real Envoy takes; and it is one that would say so if it did not.
func TestRealEnvoyTakesTheGoldensOfPolicies(t *testing.T) {
	if *envoyBinary == "" {
		t.Skip("not played, since -envoy names no Envoy 1.40")
	}
	goldens, err := filepath.Glob("testdata/policy/*.txt")
	if err != nil || len(goldens) < len(policies) {
		t.Fatalf("there are %d goldens of %d policies: %v", len(goldens), len(policies), err)
	}
	c := &config{t: t}
	for _, path := range goldens {
		c.add(path)
	}
	if ok, said := c.accepted(); !ok {
		t.Errorf("Envoy refuses the goldens:\n%s", said)
	}
	c.hosts = append(c.hosts, c.hosts[0])
	if ok, said := c.accepted(); ok || !strings.Contains(said, "Only unique values for domains are permitted") {
		t.Errorf("Envoy takes a host twice:\n%s", said)
	}
}
