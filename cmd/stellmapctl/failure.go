package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Exit codes of stellmapctl.
const (
	exitOK          = 0
	exitFailed      = 1 // a check that failed, or anything that the others do not name
	exitUsage       = 2 // the command line, or what the server refused of it; nothing was changed
	exitNotFound    = 3
	exitDenied      = 4
	exitUnreachable = 5 // no answer, no quorum, or a server that is too busy: try again later
	exitConflict    = 6
	exitTimeout     = 7
)

// A failure is what went wrong, in all that a person or a script asks of it.
type failure struct {
	doing  string // what, and on which object: "register default/orders/orders-1"; may be empty
	code   string // one word for scripts; the server's own where it gave one
	why    string
	fields []fieldProblem
	next   string // what to do; may be empty
	status int    // of the server's answer, 0 where there was none
	exit   int
}

// fieldProblem is one field of a request that the server did not take.
type fieldProblem struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

func (f *failure) Error() string {
	if f.doing == "" {
		return f.why
	}
	return f.doing + ": " + f.why
}

// asFailure gives every error a code. Until the command line is taken, errors
// that are not ours are cobra's about it.
func asFailure(err error, accepted bool) *failure {
	var f *failure
	var usage usageError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &usage), !accepted:
		return &failure{code: "usage", exit: exitUsage, why: err.Error()}
	default:
		return &failure{code: "failed", exit: exitFailed, why: err.Error()}
	}
}

// hasCode tells whether an error is a failure of this code.
func hasCode(err error, code string) bool {
	var f *failure
	return errors.As(err, &f) && f.code == code
}

func (f *failure) print(w io.Writer, as format) error {
	if as == formatJSON || as == formatJSONL {
		return f.printJSON(w)
	}
	_, err := io.WriteString(w, f.text())
	return err
}

// text is the failure for people: one line that says all, then one for each
// field, what to do, and what scripts see.
func (f *failure) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "stellmapctl: %s\n", printable(f.Error()))
	width := 0
	for _, p := range f.fields {
		width = max(width, len(printable(p.Field)))
	}
	for _, p := range f.fields {
		fmt.Fprintf(&b, "  %-*s  %s\n", width, printable(p.Field), printable(p.Reason))
	}
	if f.next != "" {
		fmt.Fprintf(&b, "  %s\n", printable(f.next))
	}
	fmt.Fprintf(&b, "  %s   exit %d\n", printable(f.code), f.exit)
	return b.String()
}

func (f *failure) printJSON(w io.Writer) error {
	line, err := asJSON(struct {
		Code   string         `json:"code"`
		Exit   int            `json:"exit"`
		Status int            `json:"status,omitempty"`
		Doing  string         `json:"doing,omitempty"`
		Detail string         `json:"detail"`
		Errors []fieldProblem `json:"errors,omitempty"`
		Next   string         `json:"next,omitempty"`
	}{f.code, f.exit, f.status, f.doing, f.why, f.fields, f.next}, "")
	if err != nil {
		return err
	}
	_, err = w.Write(line)
	return err
}
