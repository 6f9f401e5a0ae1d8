// Package xds speaks Envoy's language: it turns what the registry knows into
// clusters, endpoints, routes and listeners, and serves them over ADS, as state
// of the world and as deltas.
//
//	registry.Watch → follower → cache (one entry per view) → streams → proxies
//
// Translation is pure: a view of a service depends on nothing but the service
// and the view, so all members serve equal bytes. The cache builds and marshals
// a changed view once for all streams that share it, and does nothing for what
// nobody subscribes to. Each stream has its own loop, which holds at most one
// unacknowledged response per type: what changes meanwhile coalesces, and the
// latest wins. No timer delays a change.
//
// What is promised to a proxy: it is never told of a state older than one it
// has seen; endpoints of a new cluster never wait for the acknowledgement of the
// cluster, while routes do, and clusters are removed after the routes that named
// them; what a proxy has rejected is not sent to it again until it changes, and
// the rest goes on.
//
// The package never resolves names, keeps no state beyond what can be read back
// from the registry, and knows nothing of Raft, HTTP or other regions: a remote
// instance is an instance whose region is not the proxy's.
package xds
