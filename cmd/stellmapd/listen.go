package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"

	"google.golang.org/grpc"
)

// listeners are the member's four ports.
type listeners struct{ http, xds, grpc, admin net.Listener }

// listen takes all ports before anything else is done. Where a port was left
// to the system, the configuration is told which one it is.
func listen(c *Config) (l listeners, err error) {
	for _, p := range []struct {
		key             string
		into            *net.Listener
		addr, advertise *string
	}{
		{"http_addr", &l.http, &c.Server.HTTPAddr, &c.Server.AdvertiseHTTPAddr},
		{"xds_addr", &l.xds, &c.Server.XDSAddr, &c.Server.AdvertiseXDSAddr},
		{"grpc_addr", &l.grpc, &c.Server.GRPCAddr, &c.Server.AdvertiseGRPCAddr},
		{"admin_addr", &l.admin, &c.Server.AdminAddr, &c.Server.AdvertiseAdminAddr},
	} {
		one, err := net.Listen("tcp", *p.addr)
		if err != nil {
			return listeners{}, errors.Join(fmt.Errorf("server.%s: %w; choose another address, or end the process that has this one", p.key, err), l.Close())
		}
		*p.into = one
		if *p.advertise == *p.addr {
			*p.advertise = one.Addr().String()
		}
		*p.addr = one.Addr().String()
	}
	if len(c.Cluster.Members) == 1 {
		c.Cluster.Members[0] = c.self()
	}
	return l, nil
}

// Close closes those that no server has closed.
func (l listeners) Close() error {
	var errs []error
	for _, one := range []net.Listener{l.http, l.xds, l.grpc, l.admin} {
		if one == nil {
			continue
		}
		if err := one.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func serveHTTP(s *http.Server, l net.Listener) error {
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	}
	return nil
}

func serveGRPC(s *grpc.Server, l net.Listener) error {
	if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC on %s: %w", l.Addr(), err)
	}
	return nil
}
