package main

import (
	"fmt"

	"google.golang.org/grpc"

	"github.com/stellmap/stellmap/registry"
)

// An rpcNeed is what a gRPC method asks of its caller before anything of the call is
// looked at. What is done then is asked for again by whoever does it, by its names.
type rpcNeed struct {
	verb     registry.Verb
	resource registry.Resource
	whom     whom
}

// whom says of which callers a method asks something.
type whom uint8

const (
	whoMay       whom = iota // he may do it in the whole cluster
	whoMaySome               // he may do it to something: to what, is asked of each
	anybodyKnown             // anybody who has proved who he is
	anybody                  // he need be nobody
)

// What the methods of several services ask.
var (
	needsMembership  = rpcNeed{registry.VerbRegister, registry.ResourceMembers, whoMay} // what a member's role has, and nobody else's; which member, the port sees to
	needsToSee       = rpcNeed{registry.VerbRead, registry.ResourceInstances, whoMaySome}
	needsToSeeStatus = rpcNeed{registry.VerbRead, registry.ResourceProxies, whoMay}
)

// rpcNeeds has a row for each method of each service on the ports for proxies and for
// members. A member that serves one without a row does not start.
var rpcNeeds = map[string]rpcNeed{
	"/stellmap.v1.RegistryService/Register":      {registry.VerbRegister, registry.ResourceInstances, whoMaySome},
	"/stellmap.v1.RegistryService/Renew":         {registry.VerbRenew, registry.ResourceInstances, whoMaySome},
	"/stellmap.v1.RegistryService/Deregister":    {registry.VerbDeregister, registry.ResourceInstances, whoMaySome},
	"/stellmap.v1.RegistryService/GetInstance":   needsToSee,
	"/stellmap.v1.RegistryService/ListInstances": needsToSee,
	"/stellmap.v1.RegistryService/GetService":    needsToSee,
	"/stellmap.v1.RegistryService/Discover":      needsToSee,
	"/stellmap.v1.RegistryService/ListServices":  needsToSee,
	"/stellmap.v1.RegistryService/Watch":         needsToSee,

	"/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources": needsToSee,
	"/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources":  needsToSee,
	"/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters":                 needsToSee,
	"/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters":                  needsToSee,
	"/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters":                  needsToSee,
	"/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints":              needsToSee,
	"/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints":               needsToSee,
	"/envoy.service.endpoint.v3.EndpointDiscoveryService/FetchEndpoints":               needsToSee,
	"/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners":              needsToSee,
	"/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners":               needsToSee,
	"/envoy.service.listener.v3.ListenerDiscoveryService/FetchListeners":               needsToSee,
	"/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes":                       needsToSee,
	"/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes":                        needsToSee,
	"/envoy.service.route.v3.RouteDiscoveryService/FetchRoutes":                        needsToSee,
	"/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus":         needsToSeeStatus,
	"/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus":          needsToSeeStatus,
	"/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats":                {registry.VerbReport, registry.ResourceProxies, whoMaySome},

	"/stellmap.peer.v1.PeerService/Hello":                needsMembership,
	"/stellmap.peer.v1.PeerService/Messages":             needsMembership,
	"/stellmap.peer.v1.PeerService/Forward":              needsMembership,
	"/stellmap.peer.v1.PeerService/Snapshot":             needsMembership,
	"/stellmap.peer.v1.PeerService/Ask":                  needsMembership,
	"/stellmap.replication.v1.ReplicationService/Follow": {registry.VerbRead, registry.ResourceReplication, whoMay},

	"/grpc.health.v1.Health/Check": {whom: anybody}, // a status word
	"/grpc.health.v1.Health/List":  {whom: anybody},
	"/grpc.health.v1.Health/Watch": {whom: anybody},

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {whom: anybodyKnown},
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {whom: anybodyKnown},
}

// methodsOf are the methods that a server has, in full.
func methodsOf(s *grpc.Server) []string {
	var all []string
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			all = append(all, "/"+service+"/"+m.Name)
		}
	}
	return all
}

// mustHaveRows finds out at the start that nobody has said who may call a method.
func mustHaveRows(s *grpc.Server) {
	for _, m := range methodsOf(s) {
		if _, found := rpcNeeds[m]; !found {
			panic(fmt.Sprintf("stellmapd: nobody has said who may call %s: it has no row in the table of needs", m))
		}
	}
}
