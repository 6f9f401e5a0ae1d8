// Package access answers who is on the other side of a connection.
//
// An Identity is the one SPIFFE URI of a certificate that was verified: a member, a
// region that keeps a copy, a workload or an operator. There is no fallback, be it to
// the common name, to a host name or to an address.
//
// A Source holds a member's certificate and key, the authorities that it trusts and
// what these have revoked, all read from files and read again when the files change.
// Every listener and every connection to another member takes its settings from the
// one Source of the process, so that no port can be forgotten when a certificate is
// revoked:
//
//	files ──▶ Source ──▶ Listener     HTTP and administration
//	             │  ├───▶ Server       gRPC: members, replicators, proxies, clients
//	             │  └───▶ Client       connections to members
//	             └──────▶ connections  all that are open, with the certificate that each came with
//
// A file that is broken leaves what was read before in force, and is told of. A
// connection whose certificate is revoked, or whose authority is trusted no more, is
// closed within seconds.
//
// The package says who somebody is and on which port such a one may speak at all. What
// an identity may do is not decided here yet: there are no tokens, roles of namespaces
// or audit.
package access
