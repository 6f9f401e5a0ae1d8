package xds

import (
	"strings"

	"github.com/stellmap/stellmap/registry"
)

// Names that Envoy sees. They are in lower case, since Envoy compares hosts so.
//
// A service has the cluster {service}.{namespace} and the hosts of that name,
// with and without ".mesh"; each further endpoint the cluster
// {endpoint}~{service}.{namespace} and the host
// {endpoint}--{service}.{namespace}.mesh. A subset of its policy has the cluster
// {subset}~~{service}.{namespace}, which the service's own hosts lead to. A namespace has no dot and is not
// "mesh", so two of them can meet only if their stems are equal: the host
// without ".mesh". One table of stems therefore settles who owns a cluster and
// who owns a host.

const (
	egressName  = "egress"  // the listener, its routes and their statistics
	gatewayName = "gateway" // the same of a gateway
	hostSuffix  = registry.HostSuffix
)

// primaryStem is also the name of the primary endpoint's cluster.
func primaryStem(k registry.ServiceKey) string {
	return k.Stem(0, "")
}

func stemOf(k registry.ServiceKey, endpoint int, name string) string {
	return k.Stem(endpoint, name)
}

func clusterName(k registry.ServiceKey, endpoint int, name string) string {
	if endpoint == 0 {
		return primaryStem(k)
	}
	return strings.ToLower(name) + "~" + primaryStem(k)
}

// subsetCluster is the cluster of a subset of the service whose own cluster is whole.
func subsetCluster(whole, subset string) string { return strings.ToLower(subset) + "~~" + whole }

func isSubset(cluster string) bool { return strings.Contains(cluster, "~~") }

// neighbour is the cluster of another service in the namespace of a service's cluster.
func neighbour(whole, service string) string {
	return strings.ToLower(service) + whole[strings.LastIndexByte(whole, '.'):]
}

// hostsOf are the host names of a stem.
func hostsOf(stem string, endpoint int) []string {
	if endpoint == 0 {
		return []string{stem, stem + hostSuffix}
	}
	return []string{stem + hostSuffix}
}

// statEscapes leave no dot, at which Envoy would cut the name into a metric and
// its labels. They can be undone, so no two clusters share a name.
var statEscapes = strings.NewReplacer(".", "_", "_", "~u", "~", "~~")

// statName is the name of a cluster in Envoy's statistics.
func statName(cluster string) string { return statEscapes.Replace(cluster) }
