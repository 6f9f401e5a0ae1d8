package main

import (
	"os"
	"time"
)

// endTime is how long a member that has failed has for ending in order: its
// calls in flight, and then its files.
const endTime = drainTime + 10*time.Second

// endAnyway ends the process when it is still there some time after something
// failed. Whoever waits for a broken disk may wait for ever, and a member that
// neither works nor ends is worse than one that is gone.
func (n *node) endAnyway() {
	n.lastResort = time.AfterFunc(endTime, func() {
		n.logger.Error("the member failed and did not end by itself: it is ended", "after", endTime)
		os.Exit(exitFailed)
	})
}

// ended says that it did end.
func (n *node) ended() {
	if n.lastResort != nil {
		n.lastResort.Stop()
	}
}
