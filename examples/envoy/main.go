package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// storyTimeMax bounds the story, from the first process to PASS. Building and
// fetching Envoy come before it.
const storyTimeMax = 75 * time.Second

func main() {
	if len(os.Args) > 1 && os.Args[1] == "upstream" {
		os.Exit(exit("upstream", runUpstream(os.Args[2:])))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(exit("examples/envoy", run(ctx, os.Args[1:])))
}

func exit(who string, err error) int {
	var failed failure
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 2
	case !errors.As(err, &failed): // a failure has been reported already
		fmt.Fprintf(os.Stderr, "%s: %v\n", who, err)
	}
	return 1
}

// failure is an error that the report has told.
type failure struct{ error }

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("examples/envoy", flag.ContinueOnError)
	var s scene
	flags.StringVar(&s.work, "work", ".cache/demo", "folder for logs, data and demo.json; emptied first")
	flags.StringVar(&s.bin, "bin", "", "folder of stellmapd and stellmapctl (default: build them into bin/)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r := &report{out: os.Stdout}
	err := perform(ctx, &s, r)
	return r.close(s.work, err)
}

// perform sets the scene and plays the story in it.
func perform(ctx context.Context, s *scene, r *report) (err error) {
	if err := s.prepare(ctx, r); err != nil {
		return err
	}
	play, cancel := context.WithTimeoutCause(ctx, storyTimeMax, fmt.Errorf("the story took longer than %v", storyTimeMax))
	defer cancel()
	defer func() { err = errors.Join(err, s.end()) }()
	if err := s.start(play, r); err != nil {
		return err
	}
	if err := tell(play, s, r); err != nil {
		return errors.Join(err, context.Cause(play))
	}
	if os.Getenv("KEEP") == "" {
		return nil
	}
	if err := r.keep(s); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
