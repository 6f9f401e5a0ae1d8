package main

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/stellmap/stellmap/access"
)

// However few descriptors there are, some are left for files, and each port has places that the others cannot take.
func TestPlacesLeaveRoomForFiles(t *testing.T) {
	for files, least := range map[int64]int64{1_024: 400, 4_096: 400, 20_000: 1_500, 1 << 20: 60_000, filesUnlimited: 60_000} {
		c, err := newCrowd(files, prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		all := c.clients.places
		for port, one := range c.rooms {
			if one.places < 1 {
				t.Errorf("of %d descriptors the port %s has %d", files, port, one.places)
			}
			if port == access.HTTP.Port || port == access.XDS.Port {
				if one.places >= c.clients.places {
					t.Errorf("of %d descriptors the port %s has all of the clients'", files, port)
				}
				continue
			}
			all += one.places
		}
		if left := files - all; left < least {
			t.Errorf("of %d descriptors %d are left for files, want %d", files, left, least)
		}
	}
}

// Who comes when all places of a port are taken is sent away and counted, and a place that is left is free again. On one port of the
// clients' there is room when the other is full; the last places of both are given once.
func TestConnectionsAreBounded(t *testing.T) {
	c, err := newCrowd(20, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	enter := func(port string, n int) (in []net.Conn) {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		accepted := make(chan net.Conn, n)
		go func() {
			for b := c.bound(l, access.Door{Port: port}); ; {
				conn, err := b.Accept()
				if err != nil {
					return
				}
				accepted <- conn
			}
		}()
		for range n {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			select {
			case one := <-accepted:
				t.Cleanup(func() { one.Close() })
				in = append(in, one)
			case err := <-ended(conn):
				if !errors.Is(err, io.EOF) {
					t.Errorf("who has no place sees %v", err)
				}
			}
		}
		return in
	}
	refused := func(port string) float64 {
		var told dto.Metric
		if err := c.refused.WithLabelValues(port).Write(&told); err != nil {
			t.Fatal(err)
		}
		return told.GetCounter().GetValue()
	}
	http := enter(access.HTTP.Port, 8)
	if len(http) != 7 || refused(access.HTTP.Port) != 1 {
		t.Fatalf("of 8 that came over HTTP %d are in and %v refused, want 7 and 1", len(http), refused(access.HTTP.Port))
	}
	if in := enter(access.XDS.Port, 4); len(in) != 3 || refused(access.XDS.Port) != 1 {
		t.Fatalf("of 4 that came for xDS then %d are in, want the last 3 of both ports", len(in))
	}
	if in := enter(access.Admin.Port, 1); len(in) != 1 {
		t.Fatal("the admin port has no place, though none is taken there")
	}
	for range 2 {
		http[0].Close() // the second time is nothing
	}
	again := enter(access.HTTP.Port, 2)
	if len(again) != 1 {
		t.Fatalf("of 2 that came when one had left %d are in", len(again))
	}
	for _, one := range append(http, again...) {
		one.Close()
	}
	if in := enter(access.XDS.Port, 5); len(in) != 4 {
		t.Fatalf("of 5 that came for xDS when all over HTTP had left %d are in, want what 3 leave of 7", len(in))
	}
}

// ended tells how a connection on which nothing is said ends.
func ended(conn net.Conn) <-chan error {
	said := make(chan error, 1)
	go func() {
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, err := conn.Read(make([]byte, 1))
		said <- err
	}()
	return said
}
