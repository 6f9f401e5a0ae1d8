package xds

import (
	"fmt"

	"github.com/stellmap/stellmap/registry"
)

// Withheld is something that is registered and that proxies are not told of.
type Withheld struct {
	Service  registry.ServiceKey
	Instance string // empty: the whole endpoint, or the whole service
	Endpoint string // the endpoint's name; empty: the whole service
	Reason   string
}

// Reasons that need no further words.
const (
	reasonHostName = "its host is a name, and proxies take IP addresses only: register the address"
	reasonMissing  = "it lacks the service's primary endpoint"
	reasonDisabled = "it is disabled"
)

func reasonProtocol(got, want string) string {
	return "its protocol is " + got + ", but the endpoint's is " + want
}

func reasonTwin(id string) string { return "instance " + id + " is shown at the same address" }

func reasonTaken(name, by string) string { return "the name " + name + " belongs to the older " + by }

func reasonInvalid(err error) string { return "proxies would refuse it: " + err.Error() }

func reasonSubset(name, why string) string { return "subset " + name + " of its policy: " + why }

func reasonMirror(route int, service string) string {
	return fmt.Sprintf("mirror of routes[%d] of its policy is left out: its namespace has no service %s", route, service)
}

func reasonUnsound(what string, l *lapse) string {
	instead := "its policy is left out of " + what
	if l.edit > 0 {
		instead = fmt.Sprintf("version %d of its policy stands for the present one in %s", l.edit, what)
	}
	return instead + ", as proxies would refuse it: " + l.wrong.Error()
}

func reasonCheck(protocol string) string {
	return "checks of its policy are left out: kind grpc needs HTTP/2, and its endpoint has protocol " + protocol
}

func reasonNoSubset(route int, subset string) string {
	return fmt.Sprintf("routes[%d] of its policy leads to no subset %s, since there is none", route, subset)
}
