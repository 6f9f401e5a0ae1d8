package xds

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/stellmap/stellmap/registry"
)

// startGateway starts an Envoy that is a gateway.
func startGateway(t *testing.T, m *member, api string) *envoy {
	t.Helper()
	port := freePort(t)
	e := launchEnvoy(t, m, api, fmt.Sprintf("stellmap.role: gateway, stellmap.gateway_port: %d", port))
	e.egress = fmt.Sprintf("127.0.0.1:%d", port)
	return e
}

// secret is a server that speaks TLS, and says the name that it was asked for.
func secret(t *testing.T, protocol string) registry.Endpoint {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed below
			}
			serving.Go(func() {
				err := conn.SetDeadline(time.Now().Add(patience))
				if err == nil {
					err = conn.(*tls.Conn).Handshake()
				}
				if err == nil {
					_, err = io.WriteString(conn, "asked for "+conn.(*tls.Conn).ConnectionState().ServerName)
				}
				if err := errors.Join(err, conn.Close()); err != nil {
					t.Logf("secret: %v", err) // Envoy may try whether somebody is there
				}
			})
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
	return registry.Endpoint{Protocol: protocol, Host: "127.0.0.1", Port: int32(l.Addr().(*net.TCPAddr).Port)}
}

// names is what a server behind TLS says to who asks for a name; empty when nobody answers.
func names(address, server string) string {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: &tls.Config{ServerName: server, InsecureSkipVerify: true}} //nolint:gosec // the certificate is not what is looked at
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return ""
	}
	said, err := io.ReadAll(conn)
	if errors.Join(err, conn.Close()) != nil {
		return ""
	}
	return string(said)
}

// healthServer is a gRPC server that says that it is well.
func healthServer(t *testing.T) registry.Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	healthv1.RegisterHealthServer(g, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // the test was over before it began to serve
			t.Errorf("serve: %v", err)
		}
	})
	return registry.Endpoint{Protocol: "grpc", Host: "127.0.0.1", Port: int32(l.Addr().(*net.TCPAddr).Port)}
}

// well calls a gRPC service by its authority.
func well(t *testing.T, address, authority string) error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(authority))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	return errors.Join(err, conn.Close())
}

// A real gateway passes on HTTP, gRPC and TLS by the names of services, to instances of its
// own region alone; what comes and goes does not cut a connection that goes elsewhere.
func TestRealEnvoyIsAGateway(t *testing.T) {
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) {
			m := newMember(t, func(_ *Config, l *limits) { l.hold = holdMax })
			m.server.cache.service = regionsOf(m.machine)
			here := func(service, id, region, version string, endpoint registry.Endpoint) {
				m.register(registry.Registration{
					Namespace: "prod", Service: service, ID: id, Version: version, Metadata: map[string]string{"region": region}, Endpoints: []registry.Endpoint{endpoint},
				})
			}
			here("orders", "1", "here", "v1", upstream(t, "first"))
			here("orders", "2", "away", "v1", upstream(t, "elsewhere"))
			here("ledger", "1", "here", "", healthServer(t))
			here("vault", "1", "here", "", secret(t, "https"))
			here("queue", "1", "here", "", secret(t, "tls"))
			here("cache", "1", "here", "", echo(t))
			m.putPolicy(t, "vault", `{"checks":{"kind":"http","path":"/healthz"}}`)
			e := startGateway(t, m, api)
			e.serves("orders.prod", "first")
			e.serves("ORDERS.prod.mesh:15443", "first")
			eventually(t, "a call of gRPC is passed on", func() bool { return well(t, e.egress, "ledger.prod") == nil })
			for _, name := range []string{"vault.prod", "vault.prod.mesh", "queue.prod"} {
				eventually(t, name+" is reached by SNI", func() bool { return names(e.egress, name) == "asked for "+name })
			}
			for host, reason := range map[string]string{"nobody.prod": reasonUnknown, "vault.prod": reasonPassedOn, "cache.prod": reasonNoWay} {
				if a := e.call(host); a.status != "404" || a.reason != reason {
					t.Errorf("%s answers %+v, want %q", host, a, reason)
				}
			}
			for _, name := range []string{"stellmap", "orders.prod", ""} { // what it gets its configuration from, and what speaks no TLS
				if said := names(e.egress, name); said != "" {
					t.Errorf("by SNI %q one reaches who says %q", name, said)
				}
			}
			e.healthy(m)

			here("orders", "3", "here", "v2", upstream(t, "second"))
			m.putPolicy(t, "orders", `{"subsets":[{"name":"New","version":"v2"}]}`)
			e.serves("new~~orders.prod", "second")
			m.drop("orders", 1)
			m.drop("orders", 3)
			eventually(t, "nobody of another region stands in", func() bool { return e.call("orders.prod").status == "503" })
			e.healthy(m)
		})
	}
}

// A chain that comes or goes leaves the connections of others alone.
func TestRealEnvoyKeepsConnectionsOfAGateway(t *testing.T) {
	m := newMember(t, func(_ *Config, l *limits) { l.hold = holdMax })
	m.add("queue", 1, secret(t, "tls"))
	m.add("ledger", 1, healthServer(t))
	e := startGateway(t, m, "DELTA_GRPC")
	conn, err := grpc.NewClient("passthrough:///"+e.egress, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("ledger.prod"))
	if err != nil {
		t.Fatal(err)
	}
	var watch healthv1.Health_WatchClient
	eventually(t, "a watch has begun", func() bool {
		watch, err = healthv1.NewHealthClient(conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
		if err == nil {
			_, err = watch.Recv()
		}
		return err == nil
	})
	for n := range 3 {
		name := fmt.Sprintf("later%d.prod", n)
		m.add(fmt.Sprintf("later%d", n), 1, secret(t, "tls"))
		eventually(t, name+" is reached by SNI", func() bool { return names(e.egress, name) != "" })
	}
	m.remove("later0", 1)
	eventually(t, "what is gone is not reached", func() bool { return names(e.egress, "later0.prod") == "" })
	ended := make(chan error, 1)
	go func() {
		_, err := watch.Recv()
		ended <- err
	}()
	if err := well(t, e.egress, "ledger.prod"); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		t.Errorf("the watch has ended: %v", err)
	default:
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	<-ended
	e.healthy(m)
}
