package main

import (
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// Who floods a gRPC port with what is no call is read later, on either port, and others are served.
func TestFloodsAreReadLater(t *testing.T) {
	p := launch(t, append([]string{"--data-dir", t.TempDir()}, anyPorts...)...)
	for port, word := range map[string]string{"xds": "xDS", "grpc": "peers"} {
		conn, err := net.Dial("tcp", p.address(word))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
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
		metric := `stellmap_connections_delayed_total{port="` + port + `"}`
		p.until(metric, func() bool {
			_, body := p.get("HTTP", "/metrics")
			if !strings.Contains(body, metric) {
				t.Fatalf("there is no %s", metric)
			}
			return !strings.Contains(body, metric+" 0\n")
		})
		conn.Close()
		<-flooded
	}
}
