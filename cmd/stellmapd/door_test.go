package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// said is an answer to whoever asks a member that starts.
type said struct {
	status           int
	retryAfter, code string
}

func ask(t *testing.T, p *process, method, url string) said {
	t.Helper()
	request, err := http.NewRequest(method, url, bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	response, err := p.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct{ Code string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Errorf("%s %s: %v", method, url, err)
	}
	return said{response.StatusCode, response.Header.Get("Retry-After"), answer.Code}
}

// A node that waits for a cluster to take it in, as one that reads a large state
// back, says on its ports at once that it is not ready, and hangs nobody. When it
// is taken in, the same ports serve.
func TestAMemberThatStartsSaysSo(t *testing.T) {
	ports, its := fourPorts(t), fourPorts(t)
	two := launchAt(t, 2, t.TempDir(), its, "--join", ports[3])
	two.until("its ports to be open", func() bool {
		c, err := net.Dial("tcp", its[3])
		return err == nil && c.Close() == nil
	})
	for _, c := range []struct {
		method, url string
		want        said
	}{
		{http.MethodGet, its[0] + "/livez", said{200, "", "ok"}},
		{http.MethodGet, its[3] + "/healthz", said{200, "", "ok"}},
		{http.MethodGet, its[0] + "/readyz", said{503, "", "not_ready"}},
		{http.MethodGet, its[3] + "/readyz/xds", said{503, "", "not_ready"}},
		{http.MethodGet, its[0] + "/api/v2/services", said{503, "1", "not_ready"}},
		{http.MethodPut, its[0] + "/api/v2/namespaces/default/services/s/instances/i", said{503, "1", "not_ready"}},
		{http.MethodPost, its[0] + "/api/v1/registry/heartbeat", said{503, "1", "not_ready"}},
		{http.MethodPost, its[3] + "/admin/v1/members/join", said{503, "1", "not_ready"}},
	} {
		if got := ask(t, two, c.method, "http://"+c.url); got != c.want {
			t.Errorf("%s %s: %v, want %v", c.method, c.url, got, c.want)
		}
	}
	proxy, err := net.Dial("tcp", its[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proxy.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a proxy reads %v, want the end of its connection", err)
	}
	if err := proxy.Close(); err != nil {
		t.Error(err)
	}

	one := launchAt(t, 1, t.TempDir(), ports)
	one.ready()
	two.ready()
	if got := ask(t, two, http.MethodGet, "http://"+its[0]+"/api/v2/services"); got != (said{200, "", ""}) {
		t.Errorf("a list of services: %v", got)
	}
	if got := ask(t, two, http.MethodGet, "http://"+its[3]+"/admin/v1/status"); got != (said{401, "", "unauthorized"}) {
		t.Errorf("the status without a token: %v", got)
	}
	two.until("proxies to be served", func() bool { status, _ := two.get("HTTP", "/readyz/xds"); return status == http.StatusOK })
	conn, err := grpc.NewClient("passthrough:///"+its[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("the health of the xDS port: %v, %v", answer, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

// One that is stopped before it is taken in ends in order, and its ports with it.
func TestAMemberThatStartsIsStopped(t *testing.T) {
	its := fourPorts(t)
	two := launchAt(t, 2, t.TempDir(), its, "--join", "127.0.0.1:1")
	two.until("it to answer", func() bool {
		response, err := two.client.Get("http://" + its[0] + "/livez")
		return err == nil && response.Body.Close() == nil
	})
	two.end(exitOK)
	for _, address := range its {
		if c, err := net.Dial("tcp", address); err == nil {
			t.Errorf("%s is open after the end", address)
			c.Close()
		}
	}
}
