package httpapi

import (
	"context"
	"slices"

	"github.com/stellmap/stellmap/registry"
)

// Who may look at proxies everywhere may still be denied those of some namespace. The
// members, which tell of their proxies, do not know who asks; so what he may not look at
// is taken out of what they have told. A page can be shorter by it.

// looker says which proxies whoever asks may look at.
func looker(ctx context.Context) func(*Proxy) bool {
	return func(p *Proxy) bool { return looksAt(ctx, p) }
}

func looksAt(ctx context.Context, p *Proxy) bool {
	return registry.Permit(ctx, registry.Ask{Verb: registry.VerbRead, Resource: registry.ResourceProxies, Namespace: p.Namespace}) == nil
}

// hide takes out the proxies that may not be looked at, and gives their numbers.
func (m *MemberProxyDetail) hide(may func(*Proxy) bool) map[uint64]bool {
	hidden := make(map[uint64]bool)
	m.Proxies = slices.DeleteFunc(slices.Clone(m.Proxies), func(p Proxy) bool {
		hidden[p.Number] = !may(&p)
		return hidden[p.Number]
	})
	m.Stuck = slices.DeleteFunc(slices.Clone(m.Stuck), func(number uint64) bool { return hidden[number] })
	return hidden
}

// causeLeftOut stands for the words of a proxy that refuses what came by the policy of a
// service that whoever asks may not know of. They can name that one.
const causeLeftOut = "left out: it came by the policy of a service that you may not read"

// whyRefused is what a proxy says of a resource that it refuses, and the edits by which it came,
// as far as whoever asks may know of their services.
func (r *ProxyResource) whyRefused(ctx context.Context) (string, []PolicyCause) {
	known := slices.DeleteFunc(slices.Clone(r.Causes), func(c PolicyCause) bool { return !c.Service.KnownTo(ctx) })
	if len(known) < len(r.Causes) {
		return causeLeftOut, known
	}
	return r.Reason, known
}
