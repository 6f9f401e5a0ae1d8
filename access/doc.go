// Package access answers who is on the other side of a connection, and what such a one may do.
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
// A Limiter holds everybody to his share of a member's requests, streams and connections,
// and a Pace the connections of gRPC servers to what they may send that is no call.
//
// A Policy says what somebody may do who has proved who it is, or who presents a token.
// It is made of roles, bindings and tokens as they are written down at one moment, and
// is pure: no clock, no files, no network. By default nothing is allowed, and a rule
// that denies is stronger than all that allow.
//
//	written down ──▶ Policy ──▶ Rights of one caller ──▶ Allows(Ask), Explain(Ask)
//
// Where that is written down, and which calls ask for what, others know: the registry
// replicates it, and the process joins the two. Who did what is written down by package
// audit.
package access
