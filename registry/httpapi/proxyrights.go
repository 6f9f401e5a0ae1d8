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
