package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	loadservice "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Two proxies at two addresses and two members report that their calls to an instance
// fail: by the policy it is UNHEALTHY for a while, and all members tell of the calls.
func TestLoadMakesAnInstanceUnhealthyForAWhile(t *testing.T) {
	t.Parallel() // it waits most of its time
	c := newClusterWith(t, 3, func(m *member) {
		config, err := os.ReadFile(m.config)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(m.config, append(config, "[xds]\nload_reporting_interval = \"1s\"\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	for n := range 2 {
		c.must(http.MethodPut, instanceURL(c.members[n], "orders", fmt.Sprint("o-", n+1)), registration(9001+n, "v"), http.StatusCreated)
	}
	policy := c.members[2].url() + "/api/v2/namespaces/default/services/orders/policy"
	c.must(http.MethodPut, policy, `{"reports":{"effect":"critical","quorum":2,"lastsSeconds":7,"fromLoad":{"errorPercent":50}}}`, http.StatusCreated)
	e := c.startEnvoy("--load-stats") // it reports, too, and calls nobody
	shows := func(health string) {
		t.Helper()
		e.has(map[string]map[string]string{"orders.default": {"127.0.0.1:9001": health, "127.0.0.1:9002": "HEALTHY"}})
	}
	shows("HEALTHY")
	for n, from := range []string{"127.0.0.2", "127.0.0.3"} {
		c.reportLoad(c.members[n], from, fmt.Sprint("web-", n+1))
	}
	shows("UNHEALTHY")
	e.until("describe to tell of all who report", func() error {
		code, out, errs := ctl(t, c.members[2].url(), "describe", "service", "orders")
		if code != 0 || !strings.Contains(out, "20 of 20 calls within 1s failed") || !strings.Contains(out, "by 3 clients that report") {
			return fmt.Errorf("exit code %d:\n%s%s", code, out, errs)
		}
		return nil
	})
	shows("HEALTHY")
	e.noNACK()
}

// reportLoad reports once to a member, as a proxy at an address, that all calls to o-1 fail.
// The stream stays until the test is over.
func (c *cluster) reportLoad(m *member, from, node string) {
	c.t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := grpc.NewClient("passthrough:///"+m.address(1), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			c.t.Errorf("close the connection of %s: %v", node, err)
		}
	})
	stream, err := loadservice.NewLoadReportingServiceClient(conn).StreamLoadStats(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	if err := stream.Send(&loadservice.LoadStatsRequest{Node: &corev3.Node{Id: node}}); err != nil {
		c.t.Fatal(err)
	}
	wanted, err := stream.Recv()
	if err != nil || !wanted.GetReportEndpointGranularity() {
		c.t.Fatalf("member %d wants %v of %s: %v", m.id, wanted, node, err)
	}
	address := &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 9001}}}}
	report := &endpointv3.ClusterStats{ClusterName: "orders.default", UpstreamLocalityStats: []*endpointv3.UpstreamLocalityStats{{
		TotalErrorRequests: 20, UpstreamEndpointStats: []*endpointv3.UpstreamEndpointStats{{Address: address, TotalErrorRequests: 20}},
	}}}
	if err := stream.Send(&loadservice.LoadStatsRequest{ClusterStats: []*endpointv3.ClusterStats{report}}); err != nil {
		c.t.Fatal(err)
	}
}
