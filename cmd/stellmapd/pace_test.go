package main

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// Who floods a gRPC port with what is no call is read later, on either port, and others are answered there. A client who makes
// one call after the other, as fast as he can, floods nobody.
func TestFloodsAreReadLater(t *testing.T) {
	p := launch(t, append([]string{"--data-dir", t.TempDir()}, anyPorts...)...)
	for port, word := range map[string]string{"xds": "xDS", "grpc": "peers"} {
		conn, err := grpc.NewClient(p.address(word), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		answered := func() {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), waitMax)
			defer cancel()
			if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil && status.Code(err) != codes.Unimplemented {
				t.Fatal(err)
			}
		}
		metric := `stellmap_connections_delayed_total{port="` + port + `"}`
		delayed := func() bool {
			t.Helper()
			_, body := p.get("HTTP", "/metrics")
			if !strings.Contains(body, metric) {
				t.Fatalf("there is no %s", metric)
			}
			return !strings.Contains(body, metric+" 0\n")
		}
		if port == "xds" {
			for range 8_000 {
				answered()
			}
			if delayed() {
				t.Error("a client that makes calls is taken for one that floods")
			}
		}
		stop := flood(t, p.address(word))
		p.until(metric, delayed)
		answered()
		stop()
	}
}

// flood writes frames that say nothing until it is stopped.
func flood(t *testing.T, address string) (stop func()) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	flooded := make(chan struct{})
	go func() { // ends with the connection
		defer close(flooded)
		framer := http2.NewFramer(conn, nil)
		_, err := conn.Write([]byte(http2.ClientPreface))
		if err == nil {
			err = framer.WriteSettings()
		}
		for err == nil {
			err = framer.WritePriority(1, http2.PriorityParam{StreamDep: 3})
		}
	}()
	stop = sync.OnceFunc(func() { conn.Close(); <-flooded })
	t.Cleanup(stop)
	return stop
}
