//go:build !mutants

package main

// eventsKept is how many changes are kept for watchers; 0 = as many as the registry
// has stated. Only a build for tests keeps fewer.
func eventsKept() int { return 0 }
