package xds

import (
	"context"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stellmap/stellmap/registry"
)

// A node has tokens of its own for the streams that it begins, so that one that fails
// after each start and comes back at once does not take the turns of all others. Who
// it is follows from what the caller has proved, together with the id that it gives
// itself: proxies of one workload share a certificate. Where nobody has to prove
// anything, which is on loopback, there are no such tokens.
const (
	nodeTokens     = 20          // streams that a node may begin at once,
	nodeTokenEvery = time.Second // and one more each
	nodesMax       = 50_000      // nodes that tokens are kept of
)

// A tokenBox has the tokens of nodes.
type tokenBox struct {
	mu    sync.Mutex           // guards what follows
	paid  map[string]time.Time // by node: up to here its tokens are used up; in the past it has all of them
	swept time.Time
}

// take gives how long a node has to wait for its next token; 0 = it has taken one. Of
// more nodes than are kept those that are new have theirs: they were none of those
// that come over and over.
func (b *tokenBox) take(node string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.paid) >= nodesMax && now.Sub(b.swept) >= nodeTokenEvery {
		b.swept = now
		maps.DeleteFunc(b.paid, func(_ string, paid time.Time) bool { return !paid.After(now) })
	}
	paid, known := b.paid[node]
	if paid.Before(now) {
		paid = now
	}
	next := paid.Add(nodeTokenEvery)
	if wait := next.Sub(now) - nodeTokens*nodeTokenEvery; wait > 0 {
		return wait
	}
	if known || len(b.paid) < nodesMax {
		b.paid[node] = next
	}
	return 0
}

// token takes one for a node that begins a stream.
func (s *Server) token(ctx context.Context, n *node) error {
	who := s.identity(ctx).Name
	if caller := registry.CallerOf(ctx); caller != nil {
		who = caller.Who()
	}
	if who == "" {
		return nil
	}
	wait := s.tokens.take(who+" "+n.id, s.now())
	if wait == 0 {
		return nil
	}
	s.metrics.tokenless.Add(1)
	return status.Errorf(codes.ResourceExhausted, "node %q of %s has begun %d streams in a short time and may begin one every %v: the next in %v; look at why they end",
		clip(n.id), who, nodeTokens, nodeTokenEvery, wait.Round(time.Millisecond))
}
