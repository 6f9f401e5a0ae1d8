package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellmap/stellmap/internal/freeport"
)

// TestDevHasRegions shows two regions in one process, each of which finds what is
// registered in the other, and a folder for the data of each.
func TestDevHasRegions(t *testing.T) {
	dir := t.TempDir()
	ports, err := freeport.Find(4, devPortStep) // the second region's are that much above the first one's
	if err != nil {
		t.Fatal(err)
	}
	at := func(n int) string { return fmt.Sprintf("127.0.0.1:%d", ports[n]) }
	p := launch(t, "dev", "--regions", "a,b", "--data-dir", dir, "--http-addr", at(0), "--xds-addr", at(1), "--grpc-addr", at(2), "--admin-addr", at(3))
	url := map[string]string{"a": fmt.Sprintf("http://127.0.0.1:%d", ports[0]), "b": fmt.Sprintf("http://127.0.0.1:%d", ports[0]+devPortStep)}
	for region, other := range map[string]string{"a": "b", "b": "a"} {
		call := func(method, path, body string) (int, string) {
			request, err := http.NewRequest(method, path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/json")
			answer, err := p.client.Do(request)
			if err != nil {
				return 0, err.Error()
			}
			defer answer.Body.Close()
			text, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Fatal(err)
			}
			return answer.StatusCode, string(text)
		}
		p.until("a registration in "+region, func() bool {
			status, _ := call(http.MethodPut, url[region]+"/api/v2/namespaces/default/services/orders/instances/one", `{"endpoints":[{"protocol":"http","host":"127.0.0.1","port":9001}]}`)
			return status == http.StatusCreated || status == http.StatusOK
		})
		p.until("it in "+other, func() bool {
			_, text := call(http.MethodGet, url[other]+"/api/v2/namespaces/default/services/orders/instances?region="+region, "")
			return strings.Contains(text, `"origin":{`) && strings.Contains(text, `"region":"`+region+`"`)
		})
		if _, err := os.Stat(filepath.Join(dir, region, "identity.json")); err != nil {
			t.Error(err)
		}
	}
	p.end(exitOK)
}

// TestRegionsOfDevAreRefused shows what is refused before anything has started.
func TestRegionsOfDevAreRefused(t *testing.T) {
	for name, args := range map[string][]string{
		"twice":             {"--regions", "a,a"},
		"no name":           {"--regions", "a,b/c"},
		"too many":          {"--regions", "a,b,c,d,e,f,g,h,i"},
		"a region of one":   {"--regions", "a,b", "--region", "c"},
		"ports that choose": append([]string{"--regions", "a,b"}, anyPorts...),
	} {
		t.Run(name, func(t *testing.T) {
			if said := launch(t, append([]string{"dev"}, args...)...).fails(exitUsage); !strings.Contains(said, "--regions: ") {
				t.Errorf("it says %s", said)
			}
		})
	}
}

// TestDevStaysOnLoopback: nobody is asked for a token by dev, so neither TLS nor the flag that opens a member's ports
// lets it listen beyond loopback.
func TestDevStaysOnLoopback(t *testing.T) {
	open := []string{"--insecure-beyond-loopback-without-tls-or-authentication", "on"}
	tls := []string{"--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-file", "ca.pem"}
	for name, c := range map[string]struct {
		args []string
		key  string
	}{
		"http":              {append(open, "--http-addr", "0.0.0.0:0"), "server.http_addr"},
		"xds":               {append(open, "--xds-addr", "[::]:0"), "server.xds_addr"},
		"grpc, TLS":         {append(tls, "--grpc-addr", "10.0.0.1:19090"), "server.grpc_addr"},
		"admin":             {append(open, "--admin-addr", ":18080"), "server.admin_addr"},
		"admin, TLS":        {append(tls, "--admin-addr", "0.0.0.0:18080"), "server.admin_addr"},
		"admin, of regions": {append(open, "--regions", "a,b", "--admin-addr", "0.0.0.0:18080"), "server.admin_addr"},
	} {
		t.Run(name, func(t *testing.T) {
			if said := launch(t, append([]string{"dev"}, c.args...)...).fails(exitUsage); !strings.Contains(said, c.key+": ") || !strings.Contains(said, "without dev") {
				t.Errorf("it says %s", said)
			}
		})
	}
}
