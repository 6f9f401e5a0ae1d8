package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(untilSignal()) }

// untilSignal runs the process; SIGTERM and Ctrl-C end it in order.
func untilSignal() int {
	privateFiles()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt) }) // a second Ctrl-C ends the process at once
	return run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr)
}
