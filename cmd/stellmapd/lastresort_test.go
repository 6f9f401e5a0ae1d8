package main

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A member that has failed and hangs, as behind a disk that does not answer, is
// ended with the code of a failure; one that ends in time is left alone.
func TestAMemberThatCannotEndIsEnded(t *testing.T) {
	for name, hangs := range map[string]bool{"hangs": true, "ends": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var said strings.Builder
				codes := make(chan int, 1)
				timer := endAnyway(slog.New(slog.NewTextHandler(&said, nil)), func(code int) { codes <- code })
				<-time.After(endTime - 1)
				if len(codes) > 0 {
					t.Fatal("it was ended before its time was over")
				}
				if !hangs {
					timer.Stop()
				}
				<-time.After(2)
				switch {
				case !hangs && (len(codes) > 0 || said.Len() > 0):
					t.Errorf("it had ended by itself, and was ended: %s", &said)
				case hangs && (len(codes) == 0 || <-codes != exitFailed || !strings.Contains(said.String(), "did not end by itself")):
					t.Errorf("it was not ended as a failed one: %q", &said)
				}
			})
		})
	}
}
