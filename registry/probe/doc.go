// Package probe makes the checks that instances are registered with.
//
//	events ─▶ targets ─▶ due ─▶ try ─▶ outcome ─▶ rise, fall, flaps ─▶ condition
//	          (own share)       (bounded)                              (transitions only)
//
// Each member makes its share: of all members that the leader has lately heard of,
// the one with the highest hash for an instance. So a member that is gone leaves
// its share to the others, and nothing else moves. Two that think that a check is
// theirs both make it, which costs a connection and no more: what they say is
// fenced by the lease and by what was said before.
//
// What it promises: only what changes an instance goes through the log, a check
// that flaps is held and says until when, every try is bounded in time, bytes and
// number, and none reaches an address that the rules do not allow.
//
// What it never does: decide about an instance. It says its condition; what
// follows from that and from all else that is said, the registry derives.
package probe
