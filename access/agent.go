package access

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// workloadPatience is how long a start waits for the Workload API. Later it is waited for
// without an end, since what is in force stays.
const workloadPatience = 10 * time.Second

// origin is where a Source has from what it goes by.
type origin interface {
	read() *contents
}

// An agent is where certificate, key and authorities come from: one on this machine, by the
// SPIFFE Workload API. What the agent says takes the way of the files from there: the same
// checks, the same refusal of what would shut everybody out. Revocations are no part of
// that API, and stay a file.
// https://spiffe.io/docs/latest/spiffe-specs/spiffe_workload_api/
type agent struct {
	config  Config
	log     *slog.Logger
	metrics *metrics
	present atomic.Pointer[contents] // as the agent said last; without the list

	told time.Time // when trouble was last logged; of Watch's goroutine alone
}

// askAgent asks once, for the start.
func askAgent(c Config, log *slog.Logger, m *metrics) (*agent, error) {
	a := &agent{config: c, log: log, metrics: m}
	ctx, cancel := context.WithTimeout(context.Background(), workloadPatience)
	defer cancel()
	x, err := workloadapi.FetchX509Context(ctx, workloadapi.WithAddr(c.Workload))
	if err != nil {
		return nil, fmt.Errorf("ask the Workload API at %s who this member is (is its agent there, and is this member registered with it?): %w", c.Workload, err)
	}
	a.OnX509ContextUpdate(x)
	return a, nil
}

// watch hears what the agent says until ctx ends.
func (a *agent) watch(ctx context.Context) error {
	err := workloadapi.WatchX509Context(ctx, a, workloadapi.WithAddr(a.config.Workload))
	if ctx.Err() != nil {
		return nil // it was asked to end
	}
	return fmt.Errorf("the Workload API at %s: %w", a.config.Workload, err)
}

func (a *agent) read() *contents {
	c := *a.present.Load()
	c.crl = readContent("revocation list", a.config.Files.CRL, crlBytesMax)
	return &c
}

// OnX509ContextUpdate is the agent's word. What of it cannot be used is found out by whoever reads it.
func (a *agent) OnX509ContextUpdate(x *workloadapi.X509Context) {
	c := &contents{cert: content{err: "the agent has no certificate for this member"}, ca: content{err: "the agent has no authorities"}}
	if own := a.mine(x.SVIDs); own != nil {
		c.cert, c.key = inPEM("the certificate", own.Marshal)
		c.ca = content{err: fmt.Sprintf("the agent has no authorities of the trust domain %s", own.ID.TrustDomain())}
		if bundle, found := x.Bundles.Get(own.ID.TrustDomain()); found {
			c.ca, _ = inPEM("the authorities", func() (ca, none []byte, err error) { ca, err = bundle.Marshal(); return ca, nil, err })
		}
	}
	a.present.Store(c)
	a.metrics.agentAnswers.Set(1)
}

// OnX509ContextWatchError is of an agent that is gone, or has nothing for this member any
// more. It is asked again, more and more seldom.
func (a *agent) OnX509ContextWatchError(err error) {
	if status.Code(err) == codes.Canceled {
		return // it is Run that ends
	}
	a.metrics.agentAnswers.Set(0)
	if now := a.config.Now(); now.Sub(a.told) >= troubleSaidEvery {
		a.told = now
		a.log.Error("the Workload API does not answer; what it said before stays in force until the certificate runs out", "at", a.config.Workload, "error", err)
	}
}

// mine is the identity, of those that the agent has for this process, that a member must
// have; if none is, the first is, so that whoever looks is told what is wrong with it.
func (a *agent) mine(all []*x509svid.SVID) *x509svid.SVID {
	for _, one := range all {
		id, err := IdentityOf(one.Certificates[0])
		if err == nil && (a.config.Self == nil || a.config.Self(id) == nil) {
			return one
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// inPEM are one or two things as files would have them, within the bounds of files.
func inPEM(what string, marshal func() ([]byte, []byte, error)) (first, second content) {
	one, other, err := marshal()
	if err == nil && max(len(one), len(other)) > fileBytesMax {
		err = fmt.Errorf("more than %d bytes", fileBytesMax)
	}
	if err != nil {
		trouble := content{err: fmt.Sprintf("%s of the agent: %v", what, err)}
		return trouble, trouble
	}
	return content{data: one}, content{data: other}
}
