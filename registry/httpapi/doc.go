// Package httpapi is HTTP in and out of the registry.
//
//	request ─ route ─ slot, deadline ─ decode ─▶ registry.Registry ─▶ encode
//	            │404, 405     │429        │400, 413, 415    │ one table of errors
//
// There are two surfaces. Under /api/v1/registry/ is the contract of the existing
// StellMap SDKs, byte for byte: their Java half takes a key that it does not know
// for a failure, so nothing may ever be added there. Under /api/v2/ is ours, with
// health, revisions and problem+json. Beside them stand the health pages, the
// metrics and, on the admin port, the status of this member.
//
// What it promises:
//
//   - A request that is refused has changed nothing, and the answer names the
//     fields that were wrong, by their path in the body, parameter or header.
//     What is not understood is refused, never ignored.
//   - Every call ends within its deadline, which is shorter than what the SDKs
//     wait. Above a bound of calls in flight the next is refused at once, and counted.
//   - The health pages and the metrics answer without a quorum and under any load.
//   - A panic costs one request, not the process.
//
// What it never does: it does not send clients to another member, since any
// member takes any call; it does not judge names, which the registry does; and it
// does not authenticate callers, but for the admin port's token.
package httpapi
