package process

import (
	"context"
	"fmt"
	"time"
)

// pollEvery is how often a condition is looked at.
const pollEvery = 2 * time.Millisecond

// Until returns when the condition returns nil, with how long that took. When
// ctx ends first, the error holds what the condition said last.
func Until(ctx context.Context, what string, condition func() error) (time.Duration, error) {
	begin := time.Now()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := condition()
		if err == nil {
			return time.Since(begin), nil
		}
		select {
		case <-ctx.Done():
			return time.Since(begin), fmt.Errorf("waited %v for %s: %w", time.Since(begin).Round(time.Millisecond), what, err)
		case <-ticker.C:
		}
	}
}

// Within is Until for so long at most.
func Within(ctx context.Context, limit time.Duration, what string, condition func() error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return Until(ctx, what, condition)
}
