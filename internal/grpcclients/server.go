package grpcclients

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// A Server answers every call with its name, or with an error while it fails.
type Server struct {
	Name string
	Port int

	failing atomic.Bool
	server  *grpc.Server
	ended   chan error
}

// Serve starts a server on 127.0.0.1, at a port of its own choice if it is 0.
func Serve(name string, port int) (*Server, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", name, err)
	}
	s := &Server{Name: name, Port: l.Addr().(*net.TCPAddr).Port, ended: make(chan error, 1)}
	s.server = grpc.NewServer(grpc.ForceServerCodecV2(asItIs{}), grpc.UnknownServiceHandler(s.answer))
	go func() { s.ended <- s.server.Serve(l) }()
	return s, nil
}

func (s *Server) answer(_ any, stream grpc.ServerStream) error {
	var question []byte
	if err := stream.RecvMsg(&question); err != nil {
		return err
	}
	if s.failing.Load() {
		return status.Error(codes.Internal, s.Name+" fails")
	}
	answer := []byte(s.Name)
	return stream.SendMsg(&answer)
}

// Fail has it answer with errors from now on, or no more.
func (s *Server) Fail(failing bool) { s.failing.Store(failing) }

// Stop ends the server at once, with its connections.
func (s *Server) Stop() error {
	s.server.Stop()
	err := <-s.ended
	s.ended <- nil // for whoever stops it again
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// Ask calls a server over a connection; the answer is its name.
func Ask(ctx context.Context, over grpc.ClientConnInterface) (string, error) {
	var question, answer []byte
	err := over.Invoke(ctx, "/stellmap.test.Echo/Who", &question, &answer, grpc.ForceCodecV2(asItIs{}))
	return string(answer), err
}

// asItIs has bytes as messages, so that no language needs generated code.
type asItIs struct{}

func (asItIs) Name() string { return "bytes" }

func (asItIs) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (asItIs) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
