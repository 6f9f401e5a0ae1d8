package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/stellmap/stellmap/internal/version"
)

// answerBytesMax bounds what is read of an answer: a list of several hundred
// thousand instances fits.
const answerBytesMax = 512 << 20

// request is one call to the server.
type request struct {
	doing  string // what and on which object, for errors
	method string
	path   string // escaped
	body   any    // sent as JSON where it is not nil
	by     holder

	version *uint64              // that an edit is for; nil = any
	look    func(*http.Response) // sees the header of an answer that is no error; nil = nobody does
}

func (r request) writes() bool { return r.method != http.MethodGet }

// base is the server's URL without a slash at its end.
func (c *ctl) base() (string, error) {
	u, err := url.Parse(c.server)
	switch {
	case strings.Contains(c.server, "@"): // not shown: it may hold a password
		return "", usagef("%s: holds a user; who you are goes into --token or %s", c.serverFrom, tokenVariable)
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return "", usagef("%s: %q is not a URL such as %s", c.serverFrom, c.server, serverDefault)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return "", usagef("%s: %q has more than a host and a port", c.serverFrom, c.server)
	}
	return u.Scheme + "://" + u.Host, nil
}

// call sends a request and decodes the answer into out. All its errors are
// failures or mistakes on the command line.
func (c *ctl) call(ctx context.Context, r request, out any) error {
	base, err := c.base()
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	patience := patienceOf(ctx, c.timeout)
	answer, body, err := c.roundTrip(within, r, base)
	if err != nil {
		return noAnswer(ctx, r, base, patience, err)
	}
	if answer.StatusCode >= 300 {
		return refused(r, base, answer, body)
	}
	if r.look != nil {
		r.look(answer)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return strange(r, base, answer, body)
	}
	return nil
}

func (c *ctl) roundTrip(ctx context.Context, r request, base string) (*http.Response, []byte, error) {
	var body io.Reader
	if r.body != nil {
		encoded, err := json.Marshal(r.body)
		if err != nil {
			return nil, nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(encoded)
	}
	path := r.path
	if r.by.force {
		path += "?force=true"
	}
	h, err := http.NewRequestWithContext(ctx, r.method, base+path, body)
	if err != nil {
		return nil, nil, err
	}
	if r.by.token != "" {
		h.Header.Set(leaseTokenHeader, r.by.token)
	}
	h.Header.Set("User-Agent", "stellmapctl/"+version.Number)
	h.Header.Set("Accept", "application/json, application/problem+json")
	if body != nil {
		h.Header.Set("Content-Type", "application/json")
	}
	if r.version != nil {
		h.Header.Set("If-Match", fmt.Sprintf("%q", strconv.FormatUint(*r.version, 10)))
	}
	if c.token != "" {
		h.Header.Set("Authorization", "Bearer "+c.token)
	}
	return c.send(h)
}

func (c *ctl) send(h *http.Request) (*http.Response, []byte, error) {
	// A redirect is not followed: it would carry the token to where nobody said that it may go.
	client := &http.Client{Transport: c.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(h)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, answerBytesMax+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(body) > answerBytesMax {
		return nil, nil, fmt.Errorf("read the answer: it has more than %d bytes, ask for less at a time", answerBytesMax)
	}
	return answer, body, nil
}

// noAnswer says why there is none. A write that got as far as a connection may
// have been done all the same.
func noAnswer(ctx context.Context, r request, base string, patience time.Duration, err error) error {
	f := &failure{doing: r.doing, exit: exitUnreachable, code: "unreachable", why: "no answer from " + base + ": " + reasonOf(err, patience),
		next: "is stellmapd running there? --server or " + serverVariable + " names another member"}
	switch {
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		f.exit, f.code, f.why, f.next = exitFailed, "interrupted", "interrupted before "+base+" answered", ""
	case isTimeout(err):
		f.exit, f.code, f.why = exitTimeout, "timeout", fmt.Sprintf("no answer from %s within %v", base, patience)
		f.next = "--timeout waits longer; --server asks another member"
	}
	if next := untrusted(err); next != "" {
		f.next = next
	}
	var dial *net.OpError
	if r.writes() && !(errors.As(err, &dial) && dial.Op == "dial") {
		f.next = perhapsDone
	}
	return f
}

// perhapsDone is what to do about a write without an answer. Both writes can be
// repeated, since they say what shall be, not what to change.
const perhapsDone = "it may have been done all the same: look first, or do it again, which does no harm"

// patienceOf is how long a call that begins now may take: the caller may have
// less time than --timeout gives.
func patienceOf(ctx context.Context, timeout time.Duration) time.Duration {
	deadline, ok := ctx.Deadline()
	if left := time.Until(deadline); ok && left < timeout {
		return left.Round(time.Millisecond)
	}
	return timeout
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout()
}

// reasonOf is why a server gave no answer, in few words. Its address is said
// elsewhere.
func reasonOf(err error, patience time.Duration) string {
	var system syscall.Errno
	var address *url.Error
	switch {
	case isTimeout(err):
		return fmt.Sprintf("no answer within %v", patience)
	case errors.As(err, &system):
		return system.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it closed the connection"
	case errors.As(err, &address):
		return address.Err.Error()
	default:
		return err.Error()
	}
}

// refused turns an error answer into a failure.
func refused(r request, base string, answer *http.Response, body []byte) error {
	var p problem
	kind, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil || kind != "application/problem+json" || json.Unmarshal(body, &p) != nil || p.Code == "" {
		return strange(r, base, answer, body)
	}
	f := &failure{doing: r.doing, code: p.Code, status: answer.StatusCode, exit: exitOf(answer.StatusCode), why: p.Detail, fields: p.Errors}
	switch {
	case f.why == "":
		f.why = p.Title
	case len(p.Errors) > 0 && strings.Contains(f.why, p.Errors[0].Reason): // each has a line of its own
		f.why = fmt.Sprintf("refused for %s", count(len(p.Errors), "reason"))
	}
	f.next = next(f, answer.Header.Get("Retry-After"))
	return f
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// exitOf is the exit code of an error answer.
func exitOf(status int) int {
	switch status {
	case http.StatusBadRequest:
		return exitUsage
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitDenied
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return exitConflict
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return exitUnreachable
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return exitTimeout
	default:
		return exitFailed
	}
}

// next is what to do about a refusal, "" where its own words have to do.
func next(f *failure, retryAfter string) string {
	again := "try again"
	if n, err := strconv.ParseUint(retryAfter, 10, 32); err == nil {
		again = fmt.Sprintf("try again in %d s", n)
	}
	switch {
	case f.code == "cursor_expired":
		return "all pages of a list come from one member: name it with --server, or ask for less"
	case f.code == "unknown_outcome":
		return perhapsDone
	case f.code == "quota_exceeded":
		return "" // its words say what to do
	case f.status == http.StatusUnauthorized:
		return "--token or " + tokenVariable + " says who you are"
	case f.code == "lease_token_required":
		return "--lease-token presents what register printed; an operator does it with --force and the admin token as --token"
	case f.code == "wrong_lease_token":
		return "an operator does it with --force and the admin token as --token"
	case f.status == http.StatusForbidden:
		return "ask for a token that may"
	case f.status == http.StatusConflict, f.status == http.StatusPreconditionFailed:
		return "somebody else changed it meanwhile: look again, then decide"
	case f.code == "no_leader":
		return again + "; stellmapctl status shows the members"
	case f.status == http.StatusTooManyRequests, f.status == http.StatusServiceUnavailable:
		return again + ", or ask another member with --server"
	}
	return ""
}

// strange is an answer that no StellMap gives. Its status still says which kind
// of failure it is: proxies in between answer so.
func strange(r request, base string, answer *http.Response, body []byte) error {
	const shown = 120
	text := strings.TrimSpace(string(body[:min(len(body), shown)]))
	kind := answer.Header.Get("Content-Type")
	if kind == "" {
		kind = "no content type"
	}
	return &failure{
		doing: r.doing, code: "unexpected_answer", status: answer.StatusCode, exit: exitOf(answer.StatusCode),
		why:  fmt.Sprintf("%s answers %d with %s, not as a StellMap does: %q", base, answer.StatusCode, kind, text),
		next: "is it the HTTP port of a stellmapd? --server or " + serverVariable + " names another",
	}
}
