package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	_ "google.golang.org/grpc/xds" // the scheme xds
)

const patience = 5 * time.Second // for a call

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run ends when nobody reads what it prints, or with the process: whoever starts it ends it.
func run(args []string) error {
	rate, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("calls a second: %w", err)
	}
	conn, err := grpc.NewClient(args[0], grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(asItIs{})))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	out := teller{to: json.NewEncoder(os.Stdout), failed: make(chan error, 1)}
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			go out.call(conn) // it ends with its patience
		case err := <-out.failed:
			return fmt.Errorf("print: %w", err)
		}
	}
}

// teller prints one line at a time.
type teller struct {
	failed chan error // holds one

	mu sync.Mutex // guards what follows
	to *json.Encoder
}

func (t *teller) call(conn *grpc.ClientConn) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var from string
	line := map[string]string{}
	if err := conn.Invoke(ctx, "/stellmap.test.Echo/Who", new(string), &from); err != nil {
		line["error"] = err.Error()
	} else {
		line["from"] = from
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.to.Encode(line); err != nil {
		select {
		case t.failed <- err:
		default: // one is enough
		}
	}
}

// asItIs has strings as messages.
type asItIs struct{}

func (asItIs) Name() string { return "bytes" }

func (asItIs) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*string))}, nil
}

func (asItIs) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*string) = string(data.Materialize())
	return nil
}
