package registry

import (
	"errors"
	"time"
)

// ErrOver says that a caller has taken as much of a member as he may, or all together have.
var ErrOver = errors.New("registry: more than a caller's share")

// An OverError says how much that is, and when there is room again.
type OverError struct {
	Says  string
	After time.Duration // 0 = it is not known
}

func (e *OverError) Error() string { return e.Says }

// Unwrap makes it an ErrOver.
func (e *OverError) Unwrap() error { return ErrOver }

// RetryAfter is when a call that was refused may be made again; otherwise, where an error
// does not say.
func RetryAfter(err error, otherwise time.Duration) time.Duration {
	var over *OverError
	if errors.As(err, &over) && over.After > 0 {
		return over.After
	}
	return otherwise
}
