package access

import (
	"bytes"
	"context"
	"encoding/pem"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	workloadv1 "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/access/authority"
)

// fakeAgent is a SPIFFE Workload API on a socket, which says what the test has it say.
type fakeAgent struct {
	workloadv1.UnimplementedSpiffeWorkloadAPIServer
	t      *testing.T
	path   string
	server *grpc.Server

	mu   sync.Mutex
	says *workloadv1.X509SVIDResponse
	told chan struct{} // closed when it says something else
}

func newFakeAgent(t *testing.T, says *workloadv1.X509SVIDResponse) *fakeAgent {
	t.Helper()
	a := &fakeAgent{t: t, path: filepath.Join(t.TempDir(), "agent.sock"), says: says, told: make(chan struct{})}
	a.start()
	t.Cleanup(func() { a.server.Stop() })
	return a
}

func (a *fakeAgent) start() {
	a.t.Helper()
	l, err := net.Listen("unix", a.path)
	if err != nil {
		a.t.Fatal(err)
	}
	a.server = grpc.NewServer()
	workloadv1.RegisterSpiffeWorkloadAPIServer(a.server, a)
	go a.server.Serve(l) // ends with the server
}

func (a *fakeAgent) address() string { return "unix://" + a.path }

func (a *fakeAgent) say(says *workloadv1.X509SVIDResponse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.says = says
	close(a.told)
	a.told = make(chan struct{})
}

func (a *fakeAgent) FetchX509SVID(_ *workloadv1.X509SVIDRequest, stream grpc.ServerStreamingServer[workloadv1.X509SVIDResponse]) error {
	// The API's rule against requests that a browser or a proxy is made to send.
	if md, _ := metadata.FromIncomingContext(stream.Context()); len(md.Get("workload.spiffe.io")) != 1 {
		return status.Error(codes.InvalidArgument, "security header missing")
	}
	for {
		a.mu.Lock()
		says, told := a.says, a.told
		a.mu.Unlock()
		if says == nil {
			return status.Error(codes.PermissionDenied, "no identity issued")
		}
		if err := stream.Send(says); err != nil {
			return err
		}
		select {
		case <-told:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// identities are what an agent has of one authority.
func identities(t *testing.T, a *authority.Authority, uris ...string) *workloadv1.X509SVIDResponse {
	t.Helper()
	ca := derOf(caOf(t, a))
	says := new(workloadv1.X509SVIDResponse)
	for _, uri := range uris {
		p := issue(t, a, member(uri))
		says.Svids = append(says.Svids, &workloadv1.X509SVID{SpiffeId: uri, X509Svid: derOf(p.cert), X509SvidKey: derOf(p.key), Bundle: ca})
	}
	return says
}

func derOf(text []byte) []byte {
	var out bytes.Buffer
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		out.Write(block.Bytes)
	}
	return out.Bytes()
}

// openAgent is Open of the first member of a region, with a list of revocations in a file.
func openAgent(r *running, address, crl string) (err error) {
	r.log, r.metrics = new(syncedBuffer), prometheus.NewRegistry()
	r.Source, err = Open(Config{
		Files: Files{CRL: crl}, Workload: address, Self: Peer("cn-bj", 1),
		Logger: slog.New(slog.NewTextHandler(r.log, nil)), Registerer: r.metrics,
	})
	return err
}

// A member whose agent has its identity lives by what the agent says: a new certificate and
// a new authority are in force at once, somebody else's certificate is not taken, and an
// agent that is away takes nothing away.
func TestAMemberOfAnAgent(t *testing.T) {
	first, second := newAuthority(t), newAuthority(t)
	a := newFakeAgent(t, identities(t, first, workload, peerOne)) // the one of several that a member must have
	crl := newHome(t, issue(t, first, member(peerOne)), caOf(t, first)).files.CRL
	r := &running{t: t}
	if err := openAgent(r, a.address(), crl); err != nil {
		t.Fatal(err)
	}
	r.every /= 20
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	if got := r.Self().String(); got != peerOne {
		t.Fatalf("the member is %s, want %s", got, peerOne)
	}
	address := r.echo(Peers)
	two := func(of *authority.Authority) pair { return issue(t, of, member(peerTwo)) }
	before, revoked := two(first), two(first)
	open, err := visit(t, address, caOf(t, first), before.tls(t))
	if err != nil {
		t.Fatal(err)
	}
	list, err := first.Revoke(nil, revoked.cert, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	home{t: t}.put(crl, list)
	until(t, "the revocation to be in force", func() bool {
		_, err := visit(t, address, caOf(t, first), revoked.tls(t))
		return err != nil
	})

	a.say(identities(t, first, abroad)) // a mistake of whoever registers: another region's member
	until(t, "the mistake to be told", func() bool { return r.metric("stellmap_tls_files_unusable", "") == 1 })
	if got := r.Self().String(); got != peerOne {
		t.Errorf("the member has become %s", got)
	}

	list, err = second.Revoke(nil, two(second).cert, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	home{t: t}.put(crl, list)
	a.say(identities(t, second, peerOne))
	until(t, "the new authority to be in force", func() bool {
		_, err := visit(t, address, caOf(t, second), two(second).tls(t))
		return err == nil
	})
	until(t, "what is left of the old one to be cut", func() bool { return say(open) != nil })

	a.server.Stop()
	until(t, "the agent to be missed", func() bool { return r.metric("stellmap_tls_workload_api_up", "") == 0 })
	if _, err := visit(t, address, caOf(t, second), two(second).tls(t)); err != nil {
		t.Errorf("while the agent is away: %v", err)
	}
	a.start()
	until(t, "the agent to be heard again", func() bool { return r.metric("stellmap_tls_workload_api_up", "") == 1 })
}

// A start without an identity is an error that says of whom it was asked and why there is none.
func TestAnAgentWithoutAnIdentity(t *testing.T) {
	ours := newAuthority(t)
	for name, c := range map[string]struct {
		says *workloadv1.X509SVIDResponse
		want string
	}{
		"not registered":   {nil, "no identity issued"},
		"somebody else's":  {identities(t, ours, abroad), "cn-sh"},
		"no authorities":   {&workloadv1.X509SVIDResponse{Svids: []*workloadv1.X509SVID{{SpiffeId: peerOne, X509Svid: identities(t, ours, peerOne).Svids[0].X509Svid}}}, "key"},
		"a workload's own": {identities(t, ours, workload), "ns/prod/sa/orders"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newFakeAgent(t, c.says)
			err := openAgent(&running{t: t}, a.address(), "")
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), a.address()) {
				t.Errorf("got %v, want one with %q and the address", err, c.want)
			}
		})
	}
	nowhere := "unix://" + filepath.Join(t.TempDir(), "none.sock")
	if err := openAgent(&running{t: t}, nowhere, ""); err == nil || !strings.Contains(err.Error(), nowhere) {
		t.Errorf("without an agent: %v", err)
	}
}
