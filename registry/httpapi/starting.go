package httpapi

import (
	"log/slog"
	"net/http"

	"github.com/stellmap/stellmap/registry"
)

// Starting answers on a member's ports from the moment on at which they are its own until there is a registry to serve:
// while it reads its state back, or waits for a cluster to take it in. It lives and is not ready, and whoever asks for
// anything else is told at once to ask another member. The forms are those of the API that takes its place. What it
// answers is counted nowhere, since the counts are that API's. Where callers will have to be somebody, nobody can be yet:
// they are told that it starts, and no more.
func Starting(id uint64, guarded bool, log *slog.Logger) (public, admin http.Handler) {
	a := &API{
		cluster: func() ClusterStatus { return ClusterStatus{ID: id} }, log: loggerOr(log), metrics: newMetrics(),
		denied: func(string, string, string) {},
		limits: limits{inflight: requestsInflightMax, timeout: requestTimeout, stall: writeTimeout},
	}
	if guarded {
		a.access = func(*http.Request) (registry.Caller, error) { return nil, registry.ErrNobody }
	}
	pages := a.healthPages(a.starting, a.starting)
	return starting{newRouter(a, surfaceV1, pages)}, starting{newRouter(a, surfaceAdmin, pages)}
}

// starting has pages, and one answer for all else.
type starting struct{ *router }

func (s starting) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	one := s.route(q)
	if one.pattern == patternOther {
		one.need = need{whom: whoever} // else those who may would take it for a no
		one.serve = func(http.ResponseWriter, *http.Request) error { return errStarting }
	}
	s.api.serve(w, q, &one)
}

func (a *API) starting(*ClusterStatus) []check {
	return []check{{name: "start", fault: "this member is starting: it reads its state back, or waits for a cluster to take it in"}}
}
