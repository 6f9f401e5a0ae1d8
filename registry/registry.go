package registry

import (
	"context"
	"time"
)

// A Replicator is what the registry needs of the log.
type Replicator interface {
	// Propose returns when the command is committed and applied on this member.
	Propose(ctx context.Context, requestID string, command []byte) (Applied, error)
	// Barrier returns once everything that was committed before the call is applied and published here.
	Barrier(ctx context.Context) (Revision, error)
	// AskLeader has Machine.Answer on the leader answer a request; it is sent at most once.
	AskLeader(ctx context.Context, request []byte) ([]byte, error)
}

// Applied is what became of a command.
type Applied struct {
	Revision Revision
	Reply    []byte // what Machine.Apply returned
}

// A Clock is where time comes from.
type Clock interface {
	Now() time.Time
	// Ticker sends the time every d until stop is called; a tick nobody took is dropped.
	Ticker(d time.Duration) (ticks <-chan time.Time, stop func())
}

// Result is what a write did.
type Result struct {
	Revision Revision
	Created  bool // there was no such instance before (register)
	Changed  bool // a reader can tell
}
