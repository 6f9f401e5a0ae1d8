package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// report is what the demo says: to a person as it goes, to a program in
// demo.json at the end.
type report struct {
	out   io.Writer
	begin time.Time // of the story

	Verdict string         `json:"verdict"` // PASS or FAIL
	Reason  string         `json:"reason,omitempty"`
	Seconds float64        `json:"seconds"` // the story's, without building
	Envoy   string         `json:"envoy,omitempty"`
	Ports   map[string]int `json:"ports"`
	Steps   []step         `json:"steps"`
}

// step is one thing that was shown.
type step struct {
	Name    string             `json:"name"`    // for programs
	Says    string             `json:"says"`    // for people
	Verdict string             `json:"verdict"` // ok or failed
	Detail  string             `json:"detail"`  // what was measured, in words
	Millis  map[string]float64 `json:"milliseconds,omitempty"`
	Counts  map[string]int     `json:"counts,omitempty"`
}

// took notes a duration of the step.
func (s *step) took(what string, d time.Duration) {
	if s.Millis == nil {
		s.Millis = make(map[string]float64)
	}
	s.Millis[what] = float64(d.Microseconds()) / 1000
}

// counted notes a number of the step.
func (s *step) counted(what string, n int) {
	if s.Counts == nil {
		s.Counts = make(map[string]int)
	}
	s.Counts[what] = n
}

// saying is a line outside of the steps.
func (r *report) saying(format string, args ...any) { fmt.Fprintf(r.out, format+"\n", args...) }

// show runs a step and tells how it went.
func (r *report) show(total int, name, says string, do func(*step) error) error {
	s := step{Name: name, Says: says, Verdict: "ok"}
	err := do(&s)
	if err != nil {
		s.Verdict = "failed"
	}
	r.Steps = append(r.Steps, s)
	r.saying("[%2d/%d] %-47s %-7s %s", len(r.Steps), total, says, s.Verdict, s.Detail)
	if err != nil {
		return fmt.Errorf("%s: %w", says, err)
	}
	return nil
}

// keep closes the story, not the scene, and tells how to go on by hand.
func (r *report) keep(s *scene) error {
	r.Verdict, r.Seconds = "PASS", seconds(time.Since(r.begin))
	r.saying(`
All steps are PASS after %.1f s, logs and demo.json: %s
Everything is left running and its leases are renewed; Ctrl-C here, or kill %d, ends it.
  curl -H 'Host: %s' http://127.0.0.1:%d/
  curl http://127.0.0.1:%d/config_dump
  %s --server %s get instances %s
  %[7]s --server %[8]s federation status`,
		r.Seconds, s.work, os.Getpid(), host, s.port(home, "egress"), s.port(home, "envoy_admin"), s.ctl, s.server(home), service)
	return r.write(filepath.Join(s.work, "demo.json"))
}

// close writes demo.json, prints the verdict and returns what is left to say.
func (r *report) close(work string, err error) error {
	r.Verdict = "PASS"
	if err != nil {
		r.Verdict, r.Reason = "FAIL", err.Error()
	}
	if !r.begin.IsZero() && r.Seconds == 0 {
		r.Seconds = seconds(time.Since(r.begin))
	}
	err = errors.Join(err, r.write(filepath.Join(work, "demo.json")))
	if err != nil {
		r.saying("FAIL  %s\n      logs and demo.json: %s", strings.ReplaceAll(err.Error(), "\n", "\n      "), work)
		return failure{err}
	}
	r.saying("PASS  %.1f s   logs and demo.json: %s   keep it running: make demo KEEP=1", r.Seconds, work)
	return nil
}

func (r *report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode demo.json: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write demo.json: %w", err)
	}
	return nil
}

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

// ms is a duration for people.
func ms(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	default:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
}
