package main

import (
	"flag"
	"fmt"
	"net/http"
	"time"
)

// postID is the header by which a POST is told from all others.
const postID = "X-Post-Id"

// runUpstream serves HTTP and answers every request with its name, after a
// delay that makes sure that requests are in flight when it is killed. A POST with
// an id is printed before that: whoever reads it sees what was done twice.
func runUpstream(args []string) error {
	flags := flag.NewFlagSet("upstream", flag.ContinueOnError)
	name := flags.String("name", "", "what it answers")
	address := flags.String("address", "", "where it listens")
	delay := flags.Duration("delay", 0, "how long an answer takes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	server := &http.Server{
		Addr:              *address,
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if id := r.Header.Get(postID); id != "" && r.Method == http.MethodPost {
				fmt.Println("did", id)
			}
			select {
			case <-time.After(*delay):
			case <-r.Context().Done():
				return
			}
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprint(w, *name)
		}),
	}
	if err := server.ListenAndServe(); err != nil {
		return fmt.Errorf("serve %s on %s: %w", *name, *address, err)
	}
	return nil
}
