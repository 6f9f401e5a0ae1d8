package xds

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/stellmap/stellmap/registry"
)

// A grant is what a person may: to do anything to the services that its patterns are for,
// as upstreams have them, and to their namespaces.
type grant []string

func (g grant) Stamp() string { return strings.Join(g, ",") }

func (g grant) Allows(a registry.Ask) bool {
	return slices.Contains(g, allOf+a.Namespace) || slices.Contains(g, a.Service+"."+a.Namespace)
}

// A person is a caller whose rights a test changes.
type person struct {
	name string

	mu   sync.Mutex
	may  grant // nil = he is nobody any more
	ends []context.CancelCauseFunc
}

// set says what he may, and nobody is told.
func (p *person) set(may ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.may = may
}

// end ends what he has open.
func (p *person) end(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, end := range p.ends {
		end(why)
	}
}

func (p *person) opens(ctx context.Context) context.Context {
	ctx, end := context.WithCancelCause(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends = append(p.ends, end)
	return registry.WithCaller(ctx, p)
}

func (p *person) now() grant {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.may
}

func (p *person) Who() string                { return p.name }
func (p *person) Stamp() string              { return p.now().Stamp() }
func (p *person) Allows(a registry.Ask) bool { return p.now().Allows(a) }
func (p *person) AllowsSome(a registry.Ask) bool {
	return slices.ContainsFunc(p.now(), func(pattern string) bool { return strings.HasSuffix(pattern, "."+a.Namespace) })
}

func (p *person) Held() registry.Rights {
	if may := p.now(); may != nil {
		return may
	}
	return nil
}

// people are the persons that a test knows, by name.
type people struct {
	mu     sync.Mutex
	byName map[string]*person
}

func (p *people) called(name string) *person {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.byName[name]
	if one == nil {
		one = &person{name: name}
		if p.byName == nil {
			p.byName = make(map[string]*person)
		}
		p.byName[name] = one
	}
	return one
}

// grant says what a person may from now on; of nothing he is nobody.
func (m *member) grant(name string, may ...string) {
	m.tb.Helper()
	m.people.called(name).set(may...)
	if _, err := m.registry.PutRole(context.Background(), "", strings.ReplaceAll(name, "/", "-"), registry.Role{Description: fmt.Sprint(may, m.machine.Revision())}, registry.Writing{}); err != nil {
		m.tb.Fatal(err)
	}
}

// as has the next streams be opened by a person; by none, nobody is asked.
func (m *member) as(name string) *member {
	m.by = name
	return m
}

// outgoing is what a stream is opened with.
func (m *member) outgoing() context.Context {
	m.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	m.tb.Cleanup(cancel)
	if m.by != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "by", m.by)
	}
	return ctx
}

// caller gives what is asked its caller.
func (p *people) caller(ctx context.Context) context.Context {
	if by := metadata.ValueFromIncomingContext(ctx, "by"); len(by) > 0 {
		ctx = p.called(by[0]).opens(ctx)
	}
	return ctx
}

func (p *people) ofStream(server any, g grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return handle(server, called{g, p.caller(g.Context())})
}

func (p *people) ofCall(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	return handle(p.caller(ctx), request)
}

type called struct {
	grpc.ServerStream
	ctx context.Context
}

func (c called) Context() context.Context { return c.ctx }
