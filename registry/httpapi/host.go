package httpapi

import (
	"net"
	"net/http"
	"slices"
	"strings"
)

// ForHosts is a handler that takes calls for addresses and for some names, which are in lower case;
// nil = for any.
//
// A member on loopback that asks nobody who he is takes whoever is on the machine, and so it
// would take the page of a stranger in a browser there: the page has only to make a name of
// its own lead to 127.0.0.1, and its calls are those of its own site. But they say that name,
// which no page can change. An address cannot be made to lead elsewhere.
func ForHosts(h http.Handler, names []string) http.Handler {
	if names == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if isAddressOr(q.Host, names) {
			h.ServeHTTP(w, q)
			return
		}
		http.Error(w, "Host: this member is on loopback and asks nobody who he is, so it takes calls for an address, localhost or an advertised name only: call it by one of these", http.StatusMisdirectedRequest)
	})
}

func isAddressOr(host string, names []string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "" || net.ParseIP(strings.Trim(host, "[]")) != nil || slices.Contains(names, host)
}
