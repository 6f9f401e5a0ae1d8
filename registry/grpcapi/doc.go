// Package grpcapi is gRPC in and out of the registry.
//
//	call ─ unknown fields ─ slot, deadline ─▶ registry.Registry ─▶ answer
//	        │ BadRequest      │ busy           │ one table of refusals, which is the registry's
//
// It is /api/v2 for those who would rather have types and streams: the same rules,
// words and codes, which are the registry's, in the forms of gRPC. What only
// operators and people ask for is HTTP's alone.
//
// What it promises:
//
//   - A request that is refused has changed nothing, and the answer names the
//     fields that were wrong, by their path in the message. What is not understood
//     is refused, never ignored: unknown fields, too.
//   - Every unary call, and every request on a stream, ends within its deadline. Above
//     a bound of calls in flight, of lists or of streams the next is refused at once,
//     and counted.
//   - Nobody who does not read is waited for longer than listTimeout.
//   - A panic costs one call, not the process.
//
// What it never does: it does not send clients to another member, since any
// member takes any call; it does not judge names, which the registry does; and it
// does not authenticate callers, but for an operator's force.
package grpcapi
