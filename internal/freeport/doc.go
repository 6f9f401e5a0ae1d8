// Package freeport finds ports for the demo and for the tests that have to name one
// before anybody listens on it, or listen on it again. They lie below those that
// the kernel gives to outgoing connections and to listeners on port 0, where it
// leaves any: one from there could be taken before its holder starts, between a kill
// and a restart, or be connected to itself by a peer that dials the dead member. No
// two who ask get the same one, in this process or in others.
//
// Who listens once, and may be told where afterwards, listens on port 0 instead. The
// product does not import it.
package freeport
