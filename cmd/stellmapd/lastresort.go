package main

import (
	"log/slog"
	"time"
)

// endTime is how long a member that has failed has for ending in order: its
// calls in flight, and then its files.
const endTime = drainTime + 10*time.Second

// endAnyway ends the process when it is still there some time after something
// failed. Whoever waits for a broken disk may wait for ever, and a member that
// neither works nor ends is worse than one that is gone. Stop the timer when
// the member has ended by itself.
func endAnyway(logger *slog.Logger, exit func(code int)) *time.Timer {
	return time.AfterFunc(endTime, func() {
		logger.Error("the member failed and did not end by itself: it is ended", "after", endTime)
		exit(exitFailed)
	})
}
