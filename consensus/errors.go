package consensus

import "errors"

// What calls end with: one of these and no other, but for a *ChangeRefusal. Only ErrUnknownOutcome leaves
// open whether something was done.
var (
	// ErrNoLeader means that no leader was found, or none with a quorum, in the time that there was.
	ErrNoLeader = errors.New("consensus: no leader")
	// ErrBusy means that too much is waiting; the caller may try again later.
	ErrBusy = errors.New("consensus: too busy")
	// ErrFull means that the disks of too many members are nearly full for a command
	// that grows what they keep. Nothing was done; it will pass when there is room.
	ErrFull = errors.New("consensus: disks are nearly full")
	// ErrDiverged means that the members' states, which should be equal, are not. As
	// a proposal's error it says that no state has a majority, so that nothing was
	// done; as Run's, that a majority has another state than this member.
	ErrDiverged = errors.New("consensus: the members' states differ")
	// ErrUnknownOutcome means that the proposal may be, or become, committed, or not.
	ErrUnknownOutcome = errors.New("consensus: outcome unknown")
	// ErrStopped means that this member is stopping.
	ErrStopped = errors.New("consensus: stopped")
	// ErrTooLarge means that the command, its request id or the question is above its limit.
	ErrTooLarge = errors.New("consensus: too large")
	// ErrRefused is what Run returns when the peers know another data directory under this member's id.
	ErrRefused = errors.New("consensus: refused by the other members")
	// ErrRemoved is what Open and Run return when this member was removed from the cluster.
	ErrRemoved = errors.New("consensus: removed from the cluster")
	// ErrNotLeader is what a transport and HandleForward return when the member asked does not lead, so nothing was done.
	ErrNotLeader = errors.New("consensus: not the leader")
	// ErrNotSent is what a transport returns when a request never left this member.
	ErrNotSent = errors.New("consensus: not sent")
)
